#!/bin/sh
# Unpack Debian's Prometheus and promtool, with what their pages need, into out/prometheus: no root, nothing installed.
set -eu
packages="prometheus fonts-glyphicons-halflings libjs-bootstrap4 libjs-d3 libjs-eonasdan-bootstrap-datetimepicker libjs-jquery
    libjs-jquery-hotkeys libjs-moment libjs-moment-timezone libjs-mustache libjs-popper.js libjs-rickshaw"
folder=$PWD/out/prometheus
if ! command -v apt-get > /dev/null || ! command -v dpkg-deb > /dev/null; then
    echo "get_prometheus.sh: there is no apt-get here to take Prometheus from" >&2
    echo "  fix: install Prometheus (prometheus.io/download, or your system's package), and name it: PROMETHEUS=/path/prometheus" >&2
    exit 1
fi
partial=$folder.partial
rm -rf "$partial" && mkdir -p "$partial/debian" "$partial/lists/partial"
cd "$partial/debian"
# shellcheck disable=SC2086 # the packages are words
if ! apt-get download $packages > ../log 2>&1; then
    # This machine's package lists are missing or old: fetch new ones into a folder of our own, which needs no root.
    own_lists="-o Dir::State::Lists=$partial/lists -o Dir::Cache=$partial"
    if ! { apt-get $own_lists update && apt-get $own_lists download $packages; } > ../log 2>&1; then
        cat ../log >&2
        echo "get_prometheus.sh: apt-get cannot download Prometheus" >&2
        echo "  fix: see why above; or install it, and name it: PROMETHEUS=/path/prometheus" >&2
        exit 1
    fi
fi
for package in *.deb; do dpkg-deb -x "$package" "$partial"; done
rm -rf "$partial/debian" "$partial/lists" "$partial"/*.bin "$partial/log"
rm -rf "$folder" && mv "$partial" "$folder"
touch "$folder/.ready"
