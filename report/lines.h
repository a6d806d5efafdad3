/* A chart of lines through points as a PNG file. */
#ifndef REPORT_LINES_H
#define REPORT_LINES_H

#include <stdbool.h>
#include <stddef.h>

struct lines_series {
    const char *name;
    const double *x, *y; /* [n] in the order in which they are joined; a NaN leaves the point out */
    size_t n;
    bool bound; /* drawn dashed and dark: what the others cannot pass */
};

struct lines {
    const char *title;
    const char *subtitle;        /* may be NULL */
    const char *x_axis, *y_axis; /* what the values are */
    const struct lines_series *series;
    size_t n_series;
    double mark; /* a value of y that is ruled across the chart; NaN: none */
    const char *mark_name;
};

/* Both axes span what the points and the mark need. NULL when written, else why not (static text). */
const char *lines_write_png(const struct lines *lines, const char *path);

#endif
