#!/bin/sh
# A handler for `exec:`, one message after the other: reads a line, writes a line. Ends when standard input does.
while IFS= read -r message; do
    printf '{"payload":"%s bytes"}\n' "${#message}"
done
