#!/bin/sh
# After the removal. The streams, the settings and the key stay, except after
# `apt purge`. The user stays, so that no other user gets its number.
set -e

if [ -d /run/systemd/system ]; then
  systemctl daemon-reload
fi
if [ "$1" = purge ]; then
  rm -rf /etc/plaspy-bridge /var/lib/plaspy-bridge /var/lib/private/plaspy-bridge
fi
