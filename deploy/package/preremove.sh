#!/bin/sh
# Before the removal: of deb ("remove" or "upgrade"), of rpm (the number of versions
# that remain). An upgrade restarts the service at its end.
set -e

case "$1" in
  remove | 0) ;;
  *) exit 0 ;;
esac
if [ -d /run/systemd/system ]; then
  systemctl disable --now plaspy-bridge.service
fi
