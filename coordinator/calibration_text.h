/* The calibration text inside the program: the files of models/calibration, put into the executable
 * by the assembler. */
#ifndef SBIT_COORDINATOR_CALIBRATION_TEXT_H
#define SBIT_COORDINATOR_CALIBRATION_TEXT_H

#include <stddef.h>

enum { CALIBRATION_TEXTS = 6 };

struct calibration_text {
    const char *name; /* of the file */
    const char *begin, *end;
};

/* Text number i, below CALIBRATION_TEXTS. */
struct calibration_text calibration_text(size_t i);

#endif
