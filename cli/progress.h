/* Progress on standard error: a bar on a terminal, now and then a line elsewhere. */
#ifndef CLI_PROGRESS_H
#define CLI_PROGRESS_H

#include <stdbool.h>

enum progress_style { PROGRESS_OFF, PROGRESS_LINES, PROGRESS_BAR };

struct progress {
    const char *label;
    const char *unit; /* of the work: "tokens" unless it is set after progress_begin */
    enum progress_style style;
    bool color;
    double started, drawn; /* milliseconds */
    int columns;           /* of the terminal */
    int quarter;           /* quarters of the work told so far, for lines */
};

/* The bar when standard error is a terminal or it is asked for, else what elsewhere says. */
enum progress_style progress_style(bool asked, enum progress_style elsewhere);

void progress_begin(struct progress *progress, const char *label, enum progress_style style);
void progress_update(struct progress *progress, double done, double total);
/* Clears the line. */
void progress_end(struct progress *progress);

#endif
