#!/bin/sh
# Unpack Debian's nginx into out/nginx, for the tests: without root, and nothing of it is installed or started.
set -eu
mkdir -p out/nginx
cd out/nginx
apt-get download nginx > /dev/null 2>&1 || { apt-get update && apt-get download nginx; } > /dev/null 2>&1 \
    || { echo "install the Debian package nginx, and run this again" >&2; exit 1; }
dpkg-deb --extract nginx_*.deb .
rm nginx_*.deb
touch usr/sbin/nginx
