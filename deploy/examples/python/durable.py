"""Handles every event, each at least once and each device's in order, also those
that come while this program is down:

    pip install nats-py
    python3 durable.py [NAME [N]]

NAME is the durable consumer, which remembers what was acknowledged; N ends the
program after so many events. Needs NATS_URL, and NATS_USER and NATS_PASSWORD if the
server requires them.
"""

import asyncio
import json
import os
import sys

PREFIX = "plaspy"
STREAM = "PLASPY_EVENTS"


def decode_device(token: str) -> str:
    """Return the id that was written as one token of a subject."""
    out = bytearray()
    i = 0
    while i < len(token):
        if token[i] == "=":
            out += bytes.fromhex(token[i + 1 : i + 3])
            i += 3
        else:
            out += token[i].encode()
            i += 1
    return out.decode(errors="surrogateescape")


def encode_device(device_id: str) -> str:
    """Write an id as one token of a subject."""
    plain = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return "".join(chr(c) if c in plain else f"={c:02X}" for c in device_id.encode(errors="surrogateescape"))


def handle(subject: str, event_id: str, body: bytes) -> None:
    """Do the work. An event that comes again has the same id: store that together with the effect."""
    event = json.loads(body)
    kind = subject.split(".")[1]
    if kind == "location":
        location = event["location"]
        print(event_id, event["deviceId"], "is at", location["latitude"], location["longitude"], flush=True)
    elif kind == "alert":
        print(event_id, event["deviceId"], event["alert"], event["state"], flush=True)
    elif kind == "device":
        print(event_id, event["deviceId"], "was", event["change"], flush=True)


async def main(name: str, count: int) -> None:
    # Imported here, so that the functions above can be used without the client.
    import nats
    from nats.errors import TimeoutError as NoMessage
    from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

    nc = await nats.connect(
        os.environ.get("NATS_URL", "nats://127.0.0.1:4222"),
        user=os.environ.get("NATS_USER"),
        password=os.environ.get("NATS_PASSWORD"),
        max_reconnect_attempts=-1,
    )
    # One event at a time keeps the order, also if an event is delivered again.
    subscription = await nc.jetstream().pull_subscribe(
        f"{PREFIX}.>",
        durable=name,
        stream=STREAM,
        config=ConsumerConfig(ack_policy=AckPolicy.EXPLICIT, deliver_policy=DeliverPolicy.NEW, max_ack_pending=1),
    )
    done = 0
    while count == 0 or done < count:
        try:
            messages = await subscription.fetch(1, timeout=30)
        except NoMessage:
            continue
        for msg in messages:
            handle(msg.subject, (msg.headers or {}).get("ce-id", ""), msg.data)
            await msg.ack_sync()  # after the effect, and until the server has it
            done += 1
    await nc.drain()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "audit", int(sys.argv[2]) if len(sys.argv) > 2 else 0))
