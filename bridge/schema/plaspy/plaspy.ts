// The messages of plaspy-bridge as TypeScript types, the encoding of ids in
// subjects, and functions that decode a message. No dependencies; ES2020.
//
// To read an event, a result or a dead letter, use decode. To build a subject, use
// locationSubject and the functions beside it. To read an answer of the query
// service, use decodeAnswer.

/** First token of the bridge's subjects, and names of its streams and buckets. */
export const PREFIX = "plaspy";
export const EVENTS_STREAM = "PLASPY_EVENTS";
export const INBOUND_STREAM = "PLASPY_INBOUND";
export const RESULTS_STREAM = "PLASPY_RESULTS";
export const DEAD_LETTERS_STREAM = "PLASPY_DLQ";
export const LAST_BUCKET = "plaspy_last";
export const CONTROL_BUCKET = "plaspy_control";

/** Subjects to subscribe to, for all devices. */
export const ALL_LOCATIONS = `${PREFIX}.location.*`;
export const ALL_ALERTS = `${PREFIX}.alert.*.*`;
export const ALL_DEVICES = `${PREFIX}.device.*`;
export const ALL_RESULTS = `${PREFIX}.result.>`;
export const ALL_DEAD_LETTERS = `${PREFIX}.dlq.>`;

/** Names and values, as the API gave them. */
export type Attributes = { [name: string]: string | null } | null;

/**
 * A fix as the API gave it. The bridge vouches for dateTime, latitude and longitude;
 * the other fields are as the API documents them, and there may be more.
 */
export interface Location {
  /** ISO 8601 as the API spelled it; without an offset it is UTC. */
  dateTime: string;
  /** Degrees north, WGS 84. */
  latitude: number;
  /** Degrees east, WGS 84. */
  longitude: number;
  /** In the account's unit, km/h by default. */
  speed?: number | null;
  /** Degrees clockwise from north. */
  course?: number | null;
  /** Percent. */
  battery?: number | null;
  /** Percent. */
  fuel?: number | null;
  /** Percent. */
  fuel2?: number | null;
  temperature?: number | null;
  temperature2?: number | null;
  sensorTime1?: number | null;
  sensorTime2?: number | null;
  sensorTime3?: number | null;
  sensorTime4?: number | null;
  inactiveSeconds?: number | null;
  rpm?: number | null;
  /** The API spells it so. */
  milleage?: number | null;
  warningTexts?: string[] | null;
  warnings?: string[] | null;
  alertTexts?: string[] | null;
  alerts?: string[] | null;
  hasCriticalAlert?: boolean | null;
  attributes?: Attributes;
  accessoriesAttributes?: Attributes[] | null;
  inputs?: (boolean | null)[] | null;
  outputs?: (boolean | null)[] | null;
  [field: string]: unknown;
}

/** A new or changed last location of a device. */
export interface LocationEvent {
  deviceId: string;
  /** In the device list. */
  name?: string;
  /** When the API answered: RFC 3339 in UTC with milliseconds. */
  observedAt: string;
  /** Marks a fix between two polls that was asked for afterwards. */
  backfilled?: true;
  /** The ids of the device's groups, with BRIDGE_EVENT_GROUPS only. */
  groups?: string[];
  /** Marks a location that the bridge itself posted. */
  origin?: "inbound";
  location: Location;
}

/** An alert that was raised or cleared, with the time and position of the fix that showed it. */
export interface AlertEvent {
  deviceId: string;
  /** Of the device. */
  name?: string;
  alert: string;
  state: "raised" | "cleared";
  critical: boolean;
  texts?: unknown[];
  /** Of the fix, as the API spelled it. */
  dateTime: string;
  latitude: number;
  longitude: number;
  /** Absent for a polled fix. */
  source?: "history" | "bridge";
  groups?: string[];
  observedAt: string;
}

/** A device as the API gave it. */
export interface Device {
  id?: string;
  name?: string | null;
  description?: string | null;
  /** The phone number of its SIM card. */
  min?: string | null;
  tags?: Attributes;
  expires?: string | null;
  [field: string]: unknown;
}

/** A device that was added, changed or removed. */
export interface DeviceEvent {
  deviceId: string;
  change: "added" | "changed" | "removed";
  device: Device;
  observedAt: string;
}

/** The outcome of an inbound message: posted, or kept as a dead letter. */
export interface Result {
  /** Empty if the message's subject does not name a device. */
  deviceId: string;
  kind: "location" | "alert" | "unknown";
  /** The message's Nats-Msg-Id, or PLASPY_INBOUND:<sequence>. */
  id: string;
  /** The size of an id of which id is only the beginning. */
  idBytes?: number;
  posted: boolean;
  /** Of the API's last answer; 0 if there was none. */
  status: number;
  attempts: number;
  /** The outcomes of the elements of a batch, in their order. */
  items?: ResultItem[];
  /** Their number, if they were too large for a message. */
  itemCount?: number;
  /** If posted. */
  postedAt?: string;
  /** If posted: the API's body. */
  response?: unknown;
  /** The size of a body that was too large for a message. */
  responseBytes?: number;
  /** If not posted: why it is not tried again. */
  reason?: string;
  /** If not posted: an excerpt of the answer. */
  error?: string;
  /** If not posted: its sequence in the dead-letter stream. */
  deadLetter?: number;
}

/** The outcome of one element of a batch. */
export interface ResultItem {
  status: number;
  posted: boolean;
  error?: string;
}

/**
 * A location to post. Publish the JSON of it, of a bare Location, or of an array of
 * them as a batch, to inLocationSubject.
 */
export interface InboundLocation {
  /** If given, the subject's device. */
  deviceId?: string | null;
  /** location.dateTime if absent. */
  from?: string | null;
  /** location.dateTime if absent. */
  to?: string | null;
  location: Location;
}

/**
 * An alert to post: alertName and dateTime, or from and to with or without
 * alertName. Publish the JSON of it to inAlertSubject.
 */
export interface InboundAlert {
  /** If given, the subject's device. */
  deviceId?: string | null;
  alertName?: string | null;
  dateTime?: string;
  from?: string | null;
  to?: string | null;
}

/** An inbound message that is not tried again. */
export interface DeadLetter {
  kind: "location" | "alert" | "unknown";
  /** Empty if kind is unknown. */
  deviceId: string;
  /** The inbound message's, untouched. */
  body: string;
  /** Why it is not tried again. */
  reason: string;
  /** An excerpt of the API's answer. */
  error?: string;
  attempts: number;
  /** The subject that the message came from. */
  subject: string;
  /** In the inbound stream. */
  sequence: number;
  /** Of the API's last answer; 0 if there was none. */
  status: number;
  /** Absent if it was never posted. */
  firstTry?: string;
  lastTry?: string;
  /** The inbound message's Nats-Msg-Id. */
  messageId?: string;
  /** The size of a body of which body is only a part; 0 if it is whole. */
  truncated: number;
}

/** The question of the query service's locations and alerts. */
export interface Range {
  from: string;
  to: string;
  /** Alerts only. */
  alertName?: string | null;
}

/** The part that every answer of the API has. */
export interface APIAnswer {
  success?: boolean;
  error?: string | null;
  apiUsage?: number | null;
  apiDailyUsage?: number | null;
}

/** The API's device list. */
export interface DevicesAnswer extends APIAnswer {
  devices?: Device[] | null;
}

/** One device as the API answered it. */
export interface DeviceAnswer extends APIAnswer {
  device?: Device;
}

/** A last location; absent or null if the device has never reported. */
export interface LastAnswer extends APIAnswer {
  lastLocation?: Partial<Location> | null;
}

/** The locations of a range. */
export interface LocationsAnswer extends APIAnswer {
  locations?: Partial<Location>[] | null;
}

/** The alerts of a range. */
export interface AlertsAnswer extends APIAnswer {
  alerts?: HistoricAlert[] | null;
}

/** One entry of the API's alert history. */
export interface HistoricAlert {
  dateTime?: string;
  latitude?: number | null;
  longitude?: number | null;
  text?: string | null;
  notifications?: string[] | null;
  alerts?: string[] | null;
}

/** The last decisions on a device. */
export interface WhyAnswer {
  deviceId: string;
  /** In one line, for a person. */
  plan: string;
  /** When the next poll is due. */
  next?: string;
  /** Why then, in one word. */
  reason: string;
  /** The reason that its polls are held back now. */
  held?: string;
  /** The entries of live control in force for it, the most particular one first. */
  control?: ControlEffect[];
  /** Newest first. */
  decisions: Decision[];
}

/** The result of a poll that was asked for. Its events are in the events' stream by then. */
export interface PollAnswer extends Decision {
  deviceId: string;
}

/** The settings of a device that one entry of live control decides. */
export interface ControlEffect {
  /** Its key in CONTROL_BUCKET. */
  entry: string;
  interval?: string;
  weight?: number;
  paused?: boolean;
  until?: string;
  setBy?: string;
  setAt: string;
  /** Of the fleet's entry: requests a minute, of all replicas together. */
  rateLimit?: number;
  /** Of the fleet's entry, ids or globs: only these devices are polled. */
  devices?: string[];
  /** Of the fleet's entry, ids or globs: these devices are not polled. */
  devicesExclude?: string[];
}

/** A value of CONTROL_BUCKET about a device or a group. A member that is absent changes nothing. */
export interface ControlEntry {
  /** The longest time without a poll, such as "5s". */
  interval?: string;
  /** 0.1 to 64; other devices have 1. */
  weight?: number;
  paused?: boolean;
  /** When the entry ends. */
  until?: string;
  set_by?: string;
}

/** The value of CONTROL_BUCKET about the whole fleet. */
export interface FleetControlEntry extends ControlEntry {
  /** Requests a minute; lowers PLASPY_RATE_LIMIT. */
  rate_limit?: number;
  log_level?: "debug" | "info" | "warn" | "error";
  /** Ids or globs: only these are polled. */
  devices?: string[];
  devices_exclude?: string[];
}

/** The outcome of one or several polls of a device. */
export interface Decision {
  at: string;
  result: string;
  detail?: string;
  /** The fields that changed. */
  fields?: string[];
  /** Polls in a row with this outcome; absent means one. */
  times?: number;
  published?: number;
  /** The ce-id of the last event. */
  id?: string;
  /** Of the last event, in the events' stream. */
  sequence?: number;
}

/** Headers of a NATS message, as the NATS clients have them; get gives "" or undefined for none. */
export interface HeaderReader {
  get(name: string): string | undefined;
}

/** The CloudEvents attributes of an event or a result. The same event always has the same id. */
export interface Metadata {
  id: string;
  /** com.plaspy.location, .alert, .device or .result */
  type: string;
  source: string;
  /** The device's token, for readers that divide the messages. */
  partitionKey: string;
  /** Of the fix; of a device event observedAt; of a result when it was decided. */
  time: string;
  /** When the API answered the poll; empty for other messages. */
  recordedTime: string;
  /** Of an alert: 17 critical and raised, 13 raised, 9 cleared; else 0. */
  severity: number;
  /** Of a result: the id of the inbound message; else empty. */
  causationId: string;
  /** W3C Trace Context; empty if tracing is off. */
  traceParent: string;
}

/** Reads the headers of an event or a result. */
export function readMetadata(header: HeaderReader | undefined): Metadata {
  const get = (name: string) => header?.get(name) ?? "";
  return {
    id: get("ce-id"),
    type: get("ce-type"),
    source: get("ce-source"),
    partitionKey: get("ce-partitionkey"),
    time: get("ce-time"),
    recordedTime: get("ce-recordedtime"),
    severity: Number(get("ce-severitynumber")),
    causationId: get("ce-causationid"),
    traceParent: get("traceparent"),
  };
}

/** A decoded message: narrow it by its type. */
export type Message =
  | { type: "location"; event: LocationEvent }
  | { type: "alert"; event: AlertEvent }
  | { type: "device"; event: DeviceEvent }
  | { type: "result"; event: Result }
  | { type: "dlq"; event: DeadLetter }
  | { type: "inboundLocation"; event: InboundLocation[] }
  | { type: "inboundAlert"; event: InboundAlert };

/**
 * Decodes an event, a result, a dead letter or an inbound message. It goes by the
 * subject, and if the subject is another one (an entry of the bucket of newest
 * locations, a result on a reply subject, a copy) by the header ce-type. data is the
 * body as a string. Throws if the message is none of the bridge's.
 */
export function decode(subject: string, header: HeaderReader | undefined, data: string): Message {
  const address = parseSubject(subject);
  const type = address?.direction ?? header?.get("ce-type")?.replace(/^com\.plaspy\./, "");
  switch (type) {
    case "location":
      return { type, event: JSON.parse(data) as LocationEvent };
    case "alert":
      return { type, event: JSON.parse(data) as AlertEvent };
    case "device":
      return { type, event: JSON.parse(data) as DeviceEvent };
    case "result":
      return { type, event: JSON.parse(data) as Result };
    case "dlq":
      return { type, event: decodeDeadLetter(address!, header, data) };
    case "in":
      return decodeInbound(address!.kind, header?.get("content-type") ?? "", data);
    default:
      throw new Error(`subject ${subject}: not a message of plaspy-bridge`);
  }
}

function decodeDeadLetter(address: Address, header: HeaderReader | undefined, body: string): DeadLetter {
  const get = (name: string) => header?.get(name) || undefined;
  return {
    kind: address.kind as DeadLetter["kind"],
    deviceId: address.deviceId,
    body,
    reason: get("Plaspy-Reason") ?? "",
    error: get("Plaspy-Error"),
    attempts: Number(get("Plaspy-Attempts") ?? 0),
    subject: get("Plaspy-Subject") ?? "",
    sequence: Number(get("Plaspy-Sequence") ?? 0),
    status: Number(get("Plaspy-Status") ?? 0),
    firstTry: get("Plaspy-First-Try"),
    lastTry: get("Plaspy-Last-Try"),
    messageId: get("Plaspy-Original-Nats-Msg-Id"),
    truncated: Number(get("Plaspy-Truncated") ?? 0),
  };
}

// One location, a JSON array or NDJSON of them, or an alert.
function decodeInbound(kind: string, contentType: string, data: string): Message {
  if (kind === "alert") {
    const alert = JSON.parse(data);
    return { type: "inboundAlert", event: { ...alert, alertName: alert.alertName ?? alert.alert } };
  }
  let values: unknown;
  if (/^application\/x-ndjson\b/i.test(contentType)) {
    values = data.split("\n").filter((line) => line.trim() !== "").map((line) => JSON.parse(line));
  } else {
    values = JSON.parse(data);
  }
  const list = (Array.isArray(values) ? values : [values]) as (InboundLocation | Location)[];
  const event = list.map((l) => (l.location ? (l as InboundLocation) : { location: l as Location }));
  return { type: "inboundLocation", event };
}

/** An answer of the query service that is an error; code as HTTP has them. */
export class QueryError extends Error {
  readonly code: number;
  constructor(code: number, text: string) {
    super(`${code} ${text}`);
    this.code = code;
  }
}

/** Decodes an answer of the query service, such as decodeAnswer<LastAnswer>(m.headers, m.string()). */
export function decodeAnswer<T>(header: HeaderReader | undefined, data: string): T {
  const text = header?.get("Nats-Service-Error");
  if (text) throw new QueryError(Number(header?.get("Nats-Service-Error-Code") ?? 0), text);
  return JSON.parse(data) as T;
}

/**
 * Writes a device's id, or an alert's name, as one token of a subject: every byte
 * but ASCII letters, digits, - and _ becomes = and two upper-case hex digits.
 */
export function encodeDevice(id: string): string {
  return encodeURIComponent(id)
    .replace(/[!'()*~.]/g, (c) => "%" + c.charCodeAt(0).toString(16).toUpperCase())
    .replace(/%/g, "=");
}

/** The inverse of encodeDevice. Throws on anything that encodeDevice does not write. */
export function decodeDevice(token: string): string {
  let id: string | undefined;
  try {
    id = decodeURIComponent(token.replace(/%/g, "%25").replace(/=/g, "%"));
  } catch {
    // not an encoded id
  }
  if (id === undefined || encodeDevice(id) !== token) throw new Error(`token ${token} is not an encoded id`);
  return id;
}

/** The subject of a device's location events. */
export const locationSubject = (deviceId: string): string => `${PREFIX}.location.${encodeDevice(deviceId)}`;

/** The subject of one alert of a device. */
export const alertSubject = (deviceId: string, alert: string): string => `${PREFIX}.alert.${encodeDevice(deviceId)}.${encodeDevice(alert)}`;

/** The subject of a device's own events. */
export const deviceSubject = (deviceId: string): string => `${PREFIX}.device.${encodeDevice(deviceId)}`;

/** The subject to publish a location of a device to. */
export const inLocationSubject = (deviceId: string): string => `${PREFIX}.in.location.${encodeDevice(deviceId)}`;

/** The subject to publish an alert of a device to. */
export const inAlertSubject = (deviceId: string): string => `${PREFIX}.in.alert.${encodeDevice(deviceId)}`;

/** The subject of results. */
export const resultSubject = (kind: "location" | "alert", deviceId: string): string => `${PREFIX}.result.${kind}.${encodeDevice(deviceId)}`;

/** The subject of dead letters. */
export const deadLetterSubject = (kind: "location" | "alert", deviceId: string): string => `${PREFIX}.dlq.${kind}.${encodeDevice(deviceId)}`;

/** The subject of a question about a device. */
export const querySubject = (question: "device" | "last" | "locations" | "alerts" | "why" | "poll", deviceId: string): string =>
  `${PREFIX}.api.${question}.${encodeDevice(deviceId)}`;

/** The key of a FleetControlEntry in CONTROL_BUCKET. */
export const FLEET_CONTROL_KEY = "fleet";

/** The key of a device's ControlEntry in CONTROL_BUCKET. */
export const deviceControlKey = (deviceId: string): string => `device.${encodeDevice(deviceId)}`;

/** The key of a group's ControlEntry, by its id or its name. */
export const groupControlKey = (group: string): string => `group.${encodeDevice(group)}`;

/** The subject of the question for the device list. */
export const DEVICES_QUERY_SUBJECT = `${PREFIX}.api.devices`;

/** The meaning of a subject. */
export interface Address {
  direction: "location" | "alert" | "device" | "result" | "dlq" | "in";
  /** The kind of the event, of the inbound message, or of the message that a result or a dead letter is about. */
  kind: "location" | "alert" | "device" | "unknown";
  deviceId: string;
  /** Of an alert event. */
  alert?: string;
}

/** Reads the subject of an event, a result, a dead letter or an inbound message; undefined for any other. */
export function parseSubject(subject: string): Address | undefined {
  if (!subject.startsWith(PREFIX + ".")) return undefined;
  const [direction, ...tokens] = subject.slice(PREFIX.length + 1).split(".");
  try {
    switch (direction) {
      case "location":
      case "device":
        return tokens.length === 1 ? { direction, kind: direction, deviceId: decodeDevice(tokens[0]) } : undefined;
      case "alert":
        return tokens.length === 2 ? { direction, kind: direction, deviceId: decodeDevice(tokens[0]), alert: decodeDevice(tokens[1]) } : undefined;
      case "result":
      case "dlq":
      case "in": {
        const [kind, device] = tokens;
        if (direction === "dlq" && kind === "unknown" && tokens.length === 1) return { direction, kind, deviceId: "" };
        if (tokens.length !== 2 || (kind !== "location" && kind !== "alert")) return undefined;
        return { direction, kind, deviceId: decodeDevice(device) };
      }
      default:
        return undefined;
    }
  } catch {
    return undefined;
  }
}
