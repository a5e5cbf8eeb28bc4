#!/bin/sh
# Prints a C table of the migrations given as arguments, in their order.
set -eu
echo '#include "store/migrate.h"'
echo 'const struct migration migrations[] = {'
for file in "$@"; do
    field() { sed -n "s/^-- $1: *//p" "$file" | head -n 1; }
    transaction=true
    [ "$(field transaction)" = yes ] || transaction=false
    printf '{%s, "%s", %s, %s,\n' "$(field migration)" "$(field name)" "$(field oldest-binary)" "$transaction"
    sed -e 's/\\/\\\\/g' -e 's/"/\\"/g' -e 's/^/"/' -e 's/$/\\n"/' "$file"
    echo '},'
done
echo '};'
echo 'const size_t migration_count = sizeof(migrations) / sizeof(migrations[0]);'
