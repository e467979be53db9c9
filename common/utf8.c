#include "common/utf8.h"

int utf8_step(const char *s, size_t n)
{
    uint8_t lead = (uint8_t)s[0], low = 0x80, high = 0xBF;
    int size = 4;
    if (lead < 0x80)
        return 1;
    if (lead < 0xC2 || lead > 0xF4)
        return -1;
    if (lead < 0xE0)
        size = 2;
    else if (lead < 0xF0)
        size = 3;
    /* The second byte excludes overlong forms, surrogates and what lies above U+10FFFF. */
    if (lead == 0xE0)
        low = 0xA0;
    else if (lead == 0xED)
        high = 0x9F;
    else if (lead == 0xF0)
        low = 0x90;
    else if (lead == 0xF4)
        high = 0x8F;
    for (int i = 1; i < size; i++) {
        if ((size_t)i >= n)
            return 0;
        uint8_t b = (uint8_t)s[i];
        if (b < low || b > high)
            return -i;
        low = 0x80;
        high = 0xBF;
    }
    return size;
}

uint32_t utf8_code_point(const char *s, int size)
{
    static const uint8_t lead_bits[5] = {0, 0x7F, 0x1F, 0x0F, 0x07};
    uint32_t cp = (uint8_t)s[0] & lead_bits[size];
    for (int i = 1; i < size; i++)
        cp = cp << 6 | ((uint8_t)s[i] & 0x3F);
    return cp;
}

size_t utf8_put(char out[4], uint32_t cp)
{
    if (cp < 0x80) {
        out[0] = (char)cp;
        return 1;
    }
    size_t size = cp < 0x800 ? 2 : cp < 0x10000 ? 3 : 4;
    for (size_t i = size - 1; i > 0; i--) {
        out[i] = (char)(0x80 | (cp & 0x3F));
        cp >>= 6;
    }
    out[0] = (char)((0xF00 >> size & 0xFF) | cp);
    return size;
}
