/*
 * How deep JSON nests, told before a parser that calls itself for each level sees it: the stack of
 * the thread that parses is small. Threads: any.
 */
#pragma once

#include <stdbool.h>

#include "base/bytes.h"

/* Whether no place in text, JSON or not, is inside of more than max arrays and objects. */
bool json_is_shallow(struct bytes text, int max);
