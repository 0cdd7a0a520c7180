#!/bin/sh
# Unpack Debian packages into a folder, which appears when it is whole: no root, and nothing is installed or started.
#   unpack_debian.sh FOLDER INSTEAD PACKAGE...
# INSTEAD says what else helps where they cannot be had.
set -eu
folder=$1
instead=$2
shift 2
if ! command -v apt-get > /dev/null || ! command -v dpkg-deb > /dev/null; then
    echo "unpack_debian.sh: there is no apt-get here to take $1 from" >&2
    echo "  fix: $instead" >&2
    exit 1
fi
mkdir -p "$(dirname "$folder")"
folder=$(cd "$(dirname "$folder")" && pwd)/$(basename "$folder")
partial=$folder.partial
rm -rf "$partial" && mkdir -p "$partial/debian" "$partial/lists/partial"
cd "$partial/debian"
if ! apt-get download "$@" > ../log 2>&1; then
    # This machine's package lists are missing or old: fetch new ones into a folder of our own, which needs no root.
    own_lists="-o Dir::State::Lists=$partial/lists -o Dir::Cache=$partial"
    # shellcheck disable=SC2086 # the options are words
    if ! { apt-get $own_lists update && apt-get $own_lists download "$@"; } > ../log 2>&1; then
        cat ../log >&2
        echo "unpack_debian.sh: apt-get cannot download $1" >&2
        echo "  fix: see why above; or $instead" >&2
        exit 1
    fi
fi
for package in *.deb; do dpkg-deb -x "$package" "$partial"; done
rm -rf "$partial/debian" "$partial/lists" "$partial"/*.bin "$partial/log"
rm -rf "$folder" && mv "$partial" "$folder"
