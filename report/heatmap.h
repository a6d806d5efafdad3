/* Tables of colored cells side by side as a PNG file. */
#ifndef REPORT_HEATMAP_H
#define REPORT_HEATMAP_H

#include <stddef.h>

struct heatmap {
    const char *title;
    const char *subtitle;       /* may be NULL */
    const char *const *panels;  /* [n_panels] */
    const char *const *rows;    /* [n_rows] the same in all panels */
    const char *const *columns; /* [n_columns] likewise */
    size_t n_panels, n_rows, n_columns;
    const double *values; /* [n_panels][n_rows][n_columns] from 0 to top; NaN: an empty cell */
    double top;
    int decimals; /* of the values in the cells */
};

/* NULL when written, else why not (static text). */
const char *heatmap_write_png(const struct heatmap *map, const char *path);

#endif
