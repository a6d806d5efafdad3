/* Questions on documents: qa_1 (SQuAD), qa_2 (HotpotQA). */
#include "ruler_maker.h"

#include "cli/message.h"

#include <stdlib.h>
#include <string.h>

static int prepare(struct maker *maker)
{
    const struct questions *questions = strcmp(ruler_tasks[maker->job->task].name, "qa_1") == 0 ? maker->job->pool.squad
                                                                                                : maker->job->pool.hotpotqa;
    maker->questions = questions;
    if (!maker_upstream(maker)) maker->pool = questions->n_documents;
    if (maker->job->n_samples > questions->n)
        return maker_too_short(maker, "more samples are asked for than its file has questions");
    maker->documents = malloc((questions->n_documents ? questions->n_documents : 1) * sizeof *maker->documents);
    if (!maker->documents) return maker_fail(maker, "no memory for the documents");
    for (size_t i = 0; i < questions->n_documents; i++) maker->documents[i] = questions->documents[i];
    return EXIT_DONE;
}

/* Draws k of n numbers and adds the documents that these stand for. */
static bool add_drawn(struct maker *maker, const size_t *numbers, size_t n, size_t k, const char **list)
{
    size_t *drawn = malloc((k ? k : 1) * sizeof *drawn);
    const bool ready = drawn && random_sample(&maker->python, n, k, drawn);
    for (size_t i = 0; ready && i < k; i++) list[i] = maker->documents[numbers[drawn[i]]];
    free(drawn);
    return ready;
}

/* The question's own documents, then what else can be read with them, then any others. */
static int choose(struct maker *maker, const struct question *question, size_t size, const char **list)
{
    const size_t n_own = question->n_own, n_more = question->n_more, all = maker->questions->n_documents;
    bool ready;
    for (size_t i = 0; i < n_own && i < size; i++) list[i] = maker->documents[question->own[i]];
    if (size < n_own) return DRAW_AGAIN;
    if (size - n_own <= n_more) {
        ready = add_drawn(maker, question->more, n_more, size - n_own, list + n_own);
    } else {
        size_t *others = malloc(all * sizeof *others), n_others = 0;
        bool *used = calloc(all, sizeof *used);
        ready = others && used;
        for (size_t i = 0; ready && i < n_own; i++) used[question->own[i]] = true;
        for (size_t i = 0; ready && i < n_more; i++) {
            used[question->more[i]] = true;
            list[n_own + i] = maker->documents[question->more[i]];
        }
        for (size_t i = 0; ready && i < all; i++) {
            if (!used[i]) others[n_others++] = i;
        }
        const size_t rest = size - n_own - n_more;
        const bool enough = rest <= n_others;
        if (ready && enough) ready = add_drawn(maker, others, n_others, rest, list + n_own + n_more);
        free(used);
        free(others);
        if (!enough) return DRAW_AGAIN;
    }
    return ready ? EXIT_DONE : maker_fail(maker, "no memory for the documents");
}

/* All documents: the reference shuffles its own list, so that later samples find other documents under their numbers. Upstream repeats
 * the list as often as it takes. */
static size_t take_all(struct maker *maker, size_t size, const char **list)
{
    const size_t all = maker->questions->n_documents, n = maker_upstream(maker) ? size : all;
    if (!maker_upstream(maker)) random_shuffle(maker->job->seed, maker->documents, all, sizeof *maker->documents);
    for (size_t i = 0; i < n; i++) list[i] = maker->documents[i % all];
    return n;
}

static int draw(struct maker *maker, size_t index, size_t size, struct prompt *out)
{
    const struct question *question = &maker->questions->items[index];
    const size_t all = maker->questions->n_documents;
    struct text context = { 0 };
    size_t n = size;
    int code = EXIT_DONE;
    const char **list = malloc((size > all ? size : all) * sizeof *list);
    if (!list) return maker_fail(maker, "no memory for the documents");
    if (size < all)
        code = choose(maker, question, size, list);
    else
        n = take_all(maker, size, list);
    if (code == EXIT_DONE) {
        if (size < all || maker_upstream(maker)) random_shuffle(maker->job->seed, list, n, sizeof *list);
        for (size_t i = 0; i < n; i++) text_print(&context, i ? "\n\nDocument %zu:\n%s" : "Document %zu:\n%s", i + 1, list[i]);
        if (context.failed) code = maker_fail(maker, "no memory for the documents");
    }
    free(list);
    if (code == EXIT_DONE) {
        text_add_filled(&out->text, maker->template.at,
                        (const struct text_field[]){ { "context", context.at }, { "query", question->query }, { NULL, NULL } });
        for (size_t i = 0; i < question->answers.n; i++) strings_add(&out->outputs, question->answers.items[i]);
    }
    text_free(&context);
    return code;
}

static void add_answers(const struct prompt *prompt, struct text *out)
{
    text_add(out, " ");
    text_add_list(out, &prompt->outputs);
}

const struct ruler_family ruler_qa = {
    .template =
        "Answer the question based on the given documents. Only give me the answer and do not output any other words.\n\nThe "
        "following are given documents.\n\n{context}\n\nAnswer the question based on the given documents. Only give me the "
        "answer and do not output any other words.\n\nQuestion: {query}",
    .prefix = " Answer:",
    .prepare = prepare,
    .draw = draw,
    .add_answers = add_answers,
};
