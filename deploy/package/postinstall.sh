#!/bin/sh
# After an installation or an upgrade, of deb ("configure" and the old version, if
# any) and of rpm (the number of versions that are installed now).
set -e

case "$1" in
  configure) if [ -n "$2" ]; then upgrade=yes; fi ;;
  [0-9]*) if [ "$1" -gt 1 ]; then upgrade=yes; fi ;;
  *) exit 0 ;; # dpkg's error handling
esac

if command -v systemd-sysusers >/dev/null; then
  systemd-sysusers plaspy-bridge.conf
elif ! getent passwd plaspy-bridge >/dev/null; then
  useradd --system --user-group --no-create-home --home-dir / --shell /usr/sbin/nologin plaspy-bridge
fi

# Containers and chroots have no systemd that runs.
if [ -d /run/systemd/system ]; then
  systemctl daemon-reload
  if [ "${upgrade:-}" = yes ]; then
    systemctl try-restart plaspy-bridge.service
  fi
fi

if [ "${upgrade:-}" != yes ]; then
  cat <<'TEXT'
plaspy-bridge does not start before it has an account:
  set PLASPY_USERNAME in /etc/plaspy-bridge/env
  install -m 600 /dev/stdin /etc/plaspy-bridge/api-key     paste the API key, then Ctrl-D
  systemctl enable --now plaspy-bridge && journalctl -fu plaspy-bridge
TEXT
fi
