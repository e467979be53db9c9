#include "coordinator/calibration_text.h"

/* SBIT_CALIBRATION_DIR and the files are named in CMakeLists.txt, so that a changed text builds the
 * program anew. */
#define TEXT(name)                                                                                 \
    __asm__(".section .rodata\n"                                                                   \
            "calibration_" #name "_begin:\n"                                                       \
            ".incbin \"" SBIT_CALIBRATION_DIR "/" #name ".txt\"\n"                                 \
            "calibration_" #name "_end:\n"                                                         \
            ".byte 0\n"                                                                            \
            ".balign 8\n"                                                                          \
            ".text\n");                                                                            \
    extern const char calibration_##name##_begin[], calibration_##name##_end[]

TEXT(stories);
TEXT(novel);
TEXT(dictionary);
TEXT(jargon);
TEXT(technical);
TEXT(code);

struct calibration_text calibration_text(size_t i)
{
    const struct calibration_text texts[CALIBRATION_TEXTS] = {
        {"stories", calibration_stories_begin, calibration_stories_end},
        {"novel", calibration_novel_begin, calibration_novel_end},
        {"dictionary", calibration_dictionary_begin, calibration_dictionary_end},
        {"jargon", calibration_jargon_begin, calibration_jargon_end},
        {"technical", calibration_technical_begin, calibration_technical_end},
        {"code", calibration_code_begin, calibration_code_end},
    };
    return texts[i];
}
