#!/bin/sh
# Unpack Debian's Prometheus into a folder, without installing it: its service would start by itself.
# get_prometheus.sh FOLDER
set -eu
mkdir -p "$1"
cd "$1"
if ! apt-get download prometheus > download.log 2>&1; then
    cat download.log >&2
    echo "Prometheus cannot be downloaded: install the Debian package prometheus, or name one: PROMETHEUS=/path/prometheus" >&2
    exit 1
fi
dpkg-deb -x prometheus_*.deb .
rm prometheus_*.deb download.log
