/*
 * Files of other makers as lines that an import takes: read whole, in memory. Threads: main only.
 */
#pragma once

#include <stdio.h>

/* A secure element manifest, a JSON array, as an object a line. NULL after it has said what is
 * wrong; else the caller closes it. */
FILE *convert_manifest(const char *path);

/* A CSV file with a heading as serial,pin,batch. columns says where they are: "serial=SN,pin=Key
 * hash", names as in the heading; serial must be there. Likewise. */
FILE *convert_columns(const char *path, const char *columns);
