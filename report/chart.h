/* A grouped bar chart as a PNG file. */
#ifndef REPORT_CHART_H
#define REPORT_CHART_H

#include <stddef.h>

enum { CHART_NOTE = 24 };

struct chart {
    const char *title;
    const char *subtitle;      /* may be NULL */
    const char *axis;          /* what the values are, with unit ("seconds") */
    const char *const *groups; /* [n_groups] names under the axis */
    const char *const *series; /* [n_series] names in the legend */
    size_t n_groups, n_series;
    const double *values;            /* [n_series][n_groups], >= 0; NaN: no bar */
    const char (*notes)[CHART_NOTE]; /* [n_series][n_groups] text over the bar's value ("2.1x"); may be NULL */
};

/* NULL when written, else why not (static text). */
const char *chart_write_png(const struct chart *chart, const char *path);

/* Several charts in one picture, the first at the top. */
const char *chart_write_panels(const struct chart *charts, size_t n, const char *path);

#endif
