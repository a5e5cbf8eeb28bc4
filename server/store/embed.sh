#!/bin/sh
# Prints a C table of the migrations given as arguments, in their order. Their text goes in as
# arrays of bytes, since a string literal has a limit.
set -eu
echo '#include "store/migrate.h"'
for file in "$@"; do
    number=$(sed -n 's/^-- migration: *//p' "$file" | head -n 1)
    echo "static const char sql_$number[] = {"
    { cat "$file"; printf '\0'; } | od -An -v -tu1 | sed -e 's/^ *//' -e 's/  */, /g' -e 's/$/,/'
    echo '};'
done
echo 'const struct migration migrations[] = {'
for file in "$@"; do
    field() { sed -n "s/^-- $1: *//p" "$file" | head -n 1; }
    transaction=true
    [ "$(field transaction)" = yes ] || transaction=false
    printf '{%s, "%s", %s, %s, sql_%s},\n' "$(field migration)" "$(field name)" "$(field oldest-binary)" "$transaction" "$(field migration)"
done
echo '};'
echo 'const size_t migration_count = sizeof(migrations) / sizeof(migrations[0]);'
