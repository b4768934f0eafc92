#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# make-certificates.sh - a CA, and a certificate and key that it signed for each host
#
#   make-certificates.sh FOLDER HOST...
#
# To try things with: the CA's key stays in FOLDER, and all is valid for 30 days. Needs openssl.
set -euo pipefail
umask 077
folder=$1
shift
mkdir -p "$folder"
cd "$folder"

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj '/CN=drafter example CA' \
    -keyout ca.key -out ca.pem 2>/dev/null
for host; do
    openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$host" \
        -keyout "$host.key" -out "$host.csr" 2>/dev/null
    openssl x509 -req -in "$host.csr" -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -out "$host.pem" \
        -extfile <(echo "subjectAltName=DNS:$host,DNS:localhost,IP:127.0.0.1") 2>/dev/null
    rm "$host.csr"
done
