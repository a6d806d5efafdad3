#include "progress.h"

#include "clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { MAX_BAR = 40, REDRAW_MS = 100 };

enum progress_style progress_style(bool asked, enum progress_style elsewhere)
{
    return asked || isatty(STDERR_FILENO) ? PROGRESS_BAR : elsewhere;
}

void progress_begin(struct progress *progress, const char *label, enum progress_style style)
{
    const char *no_color = getenv("NO_COLOR");
    const double now = clock_ms();
    struct winsize size;
    *progress = (struct progress){
        .label = label, .unit = "tokens", .style = style, .started = now, .drawn = now - REDRAW_MS, .columns = 80
    };
    progress->color = isatty(STDERR_FILENO) && !(no_color && *no_color);
    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) progress->columns = size.ws_col;
}

/* label [=====>....]  45 %  1234 tokens/s  ETA 3 s   in one column less than the terminal has; on a narrow one without the bar, then
 * with less of the label. */
static void draw_bar(const struct progress *p, double share, double rate, double eta_s)
{
    enum { BRACKETS = 3, BLANKS = 2, LEAST_BAR = 4 }; /* " [" and "]"; behind the tail, which may get shorter */
    char tail[80];
    const int most = p->columns - 1;
    const int n_tail = snprintf(tail, sizeof tail, " %3.0f %%  %.0f %s/s  ETA %.0f s", share * 100, rate, p->unit, eta_s) + BLANKS;
    int width = most - n_tail - (int)strlen(p->label) - BRACKETS;
    if (width < LEAST_BAR) {
        const int label = most > n_tail ? most - n_tail : 0;
        fprintf(stderr, "\r%.*s%-*.*s", label, p->label, most < n_tail ? most : n_tail, most, tail);
    } else {
        char bar[MAX_BAR + 1];
        if (width > MAX_BAR) width = MAX_BAR;
        for (int i = 0; i < width; i++) bar[i] = i < (int)(share * width) ? '=' : i == (int)(share * width) ? '>' : '.';
        bar[width] = '\0';
        fprintf(stderr, "\r%s [%s%s%s]%-*s", p->label, p->color ? "\033[32m" : "", bar, p->color ? "\033[0m" : "", n_tail, tail);
    }
    fflush(stderr);
}

void progress_update(struct progress *p, double done, double total)
{
    const double now = clock_ms(), seconds = (now - p->started) / 1e3;
    const double share = total > 0 ? done / total : 1, rate = seconds > 0 ? done / seconds : 0;
    const double eta_s = rate > 0 && total > done ? (total - done) / rate : 0;
    if (p->style == PROGRESS_BAR && now - p->drawn >= REDRAW_MS) {
        p->drawn = now;
        draw_bar(p, share, rate, eta_s);
    } else if (p->style == PROGRESS_LINES && (int)(share * 4) > p->quarter) {
        p->quarter = (int)(share * 4);
        fprintf(stderr, "%s: %.0f of %.0f %s, %.0f %s/s, ETA %.0f s\n", p->label, done, total, p->unit, rate, p->unit, eta_s);
    }
}

void progress_end(struct progress *p)
{
    if (p->style == PROGRESS_BAR) fprintf(stderr, "\r%*s\r", p->columns - 1, "");
}
