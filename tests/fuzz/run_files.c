/* Runs a fuzz target over every file of the folders given: the corpus as a test. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

enum { MAX_FILE_BYTES = 1 << 20 };

static int file_run(const char *folder, const char *name)
{
    char path[4096];
    snprintf(path, sizeof(path), "%s/%s", folder, name);
    FILE *file = fopen(path, "rb");
    uint8_t *data = file ? malloc(MAX_FILE_BYTES) : NULL;
    if (!data)
        return -1;
    size_t len = fread(data, 1, MAX_FILE_BYTES, file);
    fclose(file);
    LLVMFuzzerTestOneInput(data, len);
    free(data);
    return 0;
}

int main(int argc, char **argv)
{
    int count = 0;
    for (int i = 1; i < argc; i++) {
        DIR *folder = opendir(argv[i]);
        struct dirent *entry;
        while (folder && (entry = readdir(folder))) {
            if (entry->d_name[0] != '.' && file_run(argv[i], entry->d_name) == 0)
                count++;
        }
        if (folder)
            closedir(folder);
    }
    printf("%d files\n", count);
    return count > 0 ? 0 : 1;
}
