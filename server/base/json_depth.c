#include "base/json_depth.h"

bool json_is_shallow(struct bytes text, int max)
{
    int depth = 0;
    bool in_string = false;
    for (size_t i = 0; i < text.len && depth <= max; i++) {
        uint8_t c = text.data[i];
        if (in_string && c == '\\')
            i++;
        else if (c == '"')
            in_string = !in_string;
        else if (!in_string)
            depth += (c == '{' || c == '[') - (c == '}' || c == ']');
    }
    return depth <= max;
}
