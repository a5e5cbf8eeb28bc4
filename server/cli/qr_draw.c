#include "cli/qr_draw.h"

#include <errno.h>
#include <fcntl.h>
#include <png.h>
#include <qrencode.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"

/* ISO/IEC 18004 5.3.8: four modules of nothing on every side. */
enum { QUIET = 4, PIXELS = 8, DARK = 0, LIGHT = 255 };

DEFINE_CLEANUP(QRcode *, QRcode_free);

static enum err code_make(const char *text, QRcode **ret_code)
{
    size_t len = strlen(text);
    if (len == 0 || len > QR_MAX_BYTES)
        return ERR_INVALID;
    *ret_code = QRcode_encodeData((int)len, (const unsigned char *)text, 0, QR_ECLEVEL_M);
    return *ret_code ? ERR_OK : ERR_NO_MEMORY;
}

/* Whether a module is dark; those around the code are not. */
static bool is_dark(const QRcode *code, int x, int y)
{
    return x >= 0 && y >= 0 && x < code->width && y < code->width &&
           code->data[y * code->width + x] & 1;
}

/* Light modules are drawn, in white on black, so that the terminal's colours do not matter. */
static void rows_print(const QRcode *code, int y)
{
    static const char *const blocks[] = {" ", "\u2584", "\u2580", "\u2588"};
    fputs("\033[97;40m", stdout);
    for (int x = -QUIET; x < code->width + QUIET; x++)
        fputs(blocks[2 * !is_dark(code, x, y) + !is_dark(code, x, y + 1)], stdout);
    fputs("\033[0m\n", stdout);
}

enum err qr_print(const char *text)
{
    _cleanup_(QRcode_freep) QRcode *code = NULL;
    enum err e = code_make(text, &code);
    for (int y = -QUIET; !e && y < code->width + QUIET; y += 2)
        rows_print(code, y);
    return e;
}

static uint8_t *pixels_make(const QRcode *code, png_uint_32 side)
{
    uint8_t *pixels = malloc((size_t)side * side);
    for (size_t i = 0; pixels && i < (size_t)side * side; i++) {
        int x = (int)(i % side) / PIXELS - QUIET, y = (int)(i / side) / PIXELS - QUIET;
        pixels[i] = is_dark(code, x, y) ? DARK : LIGHT;
    }
    return pixels;
}

static enum err png_write(const QRcode *code, FILE *file)
{
    png_image image = {.version = PNG_IMAGE_VERSION, .format = PNG_FORMAT_GRAY};
    image.width = image.height = (png_uint_32)(code->width + 2 * QUIET) * PIXELS;
    _cleanup_(freep) uint8_t *pixels = pixels_make(code, image.width);
    if (!pixels)
        return ERR_NO_MEMORY;
    bool written = png_image_write_to_stdio(&image, file, 0, pixels, 0, NULL) != 0;
    png_image_free(&image);
    return written && fflush(file) == 0 ? ERR_OK : ERR_SYSTEM;
}

enum err qr_write_png(const char *text, const char *path)
{
    _cleanup_(QRcode_freep) QRcode *code = NULL;
    enum err e = code_make(text, &code);
    if (e)
        return e;
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    _cleanup_(fclosep) FILE *file = fd >= 0 ? fdopen(fd, "w") : NULL;
    if (!file)
        return ERR_SYSTEM;
    e = png_write(code, file);
    if (e)
        unlink(path);
    return e;
}
