/* The table of commands and options. Holds words and limits only: what they do stands elsewhere. */
#include "coordinator/options_table.h"

#define COMPRESS (1u << CMD_COMPRESS)
#define RUN      (1u << CMD_RUN)
#define EVAL     (1u << CMD_EVAL)
#define INSPECT  (1u << CMD_INSPECT)
#define TOKENIZE (1u << CMD_TOKENIZE)
#define KERNELS  (1u << CMD_BENCH_KERNELS)
#define BENCH    (1u << CMD_BENCH_MODEL)
#define RANKS    (COMPRESS | RUN | EVAL | BENCH)

#define SIZE_MEBI 1048576.0
#define SIZE_PEBI 1125899906842624.0

#define AT(field) offsetof(struct options, field)

static const char *const methods[] = {"code", "sign", "q8_0", "q4_0", "q2_0", "q1_0", NULL};
static const char *const embedding_types[] = {"q8_0", "q4_0",     "f16",   "f32",
                                              "code4", "code2.67", "code2", NULL};
static const char *const matrix_types[] = {"code", "q8_0", "q4_0", "q2_0", "q1_0",
                                           "f16",  "bf16", "f32",  NULL};
static const char *const wire_types[] = {"f32", "f16", "q8", NULL};
static const char *const kv_types[] = {"f16", "q8", NULL};

const struct option_rule option_rules[] = {
    {"output", 'o', OPTION_STRING, AT(output), 0, 0, 0, NULL, COMPRESS, "FILE",
     "the GGUF file to write"},
    {"method", 0, OPTION_CHOICE, AT(method), 0, 0, 0, methods, COMPRESS, "NAME",
     "code: one byte per 2 to 16 weights, and q4_0, q8_0 or\n"
     "f16 for the matrices that need more, as --bits allows (default);\n"
     "q8_0, q4_0, q2_0, q1_0: standard types that other GGUF runtimes\n"
     "read, of 8.5, 4.5, 2.25 and 1.125 bits;\n"
     "sign: signs, a scale per 128, the largest 2 % in F16: about\n"
     "2.4 bits per weight, see --outliers; never calibrated"},
    {"bits", 0, OPTION_REAL, AT(bits), AT(has_bits), 0.5, 16, NULL, COMPRESS, "B",
     "bits per weight of the matrices for method code, 0.5 to 16\n(default 1)"},
    {"outliers", 0, OPTION_REAL, AT(outliers), 0, 0, 0.5, NULL, COMPRESS, "SHARE",
     "share of weights that method sign restores in F16, each for\n64 bits (default 0.02)"},
    {"embeddings", 0, OPTION_CHOICE, AT(embeddings), 0, 0, 0, embedding_types, COMPRESS, "TYPE",
     "type of embeddings and head: q8_0 (default), q4_0, f16, f32;\ncode4, code2.67, code2: byte codes of so many bits"},
    {"shard-size", 0, OPTION_SIZE, AT(shard_bytes), 0, SIZE_MEBI, SIZE_PEBI, NULL, COMPRESS, "SIZE",
     "cut the output into files of at most SIZE (500M, 4G)"},
    {"calib", 0, OPTION_LIST, AT(calib), 0, 0, 0, NULL, COMPRESS, "FILE",
     "text whose statistics steer the compression; up to 8 times, the\n"
     "texts then take turns (default: a text inside the program);\n"
     "none: round every weight by itself, much faster and much worse"},
    {"calib-tokens", 0, OPTION_U32, AT(calib_tokens), AT(has_calib_tokens), 16, 16777216, NULL,
     COMPRESS, "N", "use at most N tokens of it (default 131072)"},
    {"calib-ctx", 0, OPTION_U32, AT(calib_context), 0, 2, 16777216, NULL, COMPRESS, "N",
     "in windows of N tokens (default: the model's context, at most 512)"},
    {"distill", 0, OPTION_U32, AT(distill), AT(has_distill), 0, 1000, NULL, COMPRESS, "N",
     "at the end, tune row scales, norms and codes in N passes over\n"
     "it against the original's logits (default 0): 2 passes gain\n"
     "most of what there is, and cost more than all the rest"},
    {"recipe", 0, OPTION_STRING, AT(recipe), 0, 0, 0, NULL, COMPRESS, "WORDS",
     "steps of the compression, NAME=VALUE separated by commas, see\n"
     "docs/compression.md; plain: rounding only"},
    {"ram", 0, OPTION_SIZE, AT(ram), 0, SIZE_MEBI, SIZE_PEBI, NULL, COMPRESS, "SIZE",
     "keep each rank's memory below SIZE (512M, 2G): activations go to\n"
     "disk ($TMPDIR or /var/tmp) and second moments are cut into blocks\n"
     "where that is needed"},
    {"resume", 0, OPTION_FLAG, AT(resume), 0, 0, 0, NULL, COMPRESS, NULL,
     "go on where an earlier run of the same command was stopped, by\n"
     "whatever; the result is the same to the last bit. Until a run is\n"
     "complete its work is kept in FILE.part and FILE.journal; without\n"
     "--resume such work is never written over, but refused: remove\n"
     "them to begin again. With --distill there is FILE.distill.part too"},
    {"dry-run", 0, OPTION_FLAG, AT(dry_run), 0, 0, 0, NULL, COMPRESS, NULL,
     "print what would be done, its size and about how long it would\n"
     "take, from a measurement of some seconds; write nothing"},
    {"html", 0, OPTION_STRING, AT(html), 0, 0, 0, NULL, COMPRESS, "FILE",
     "write the report with plots to FILE as one page"},
    {"shape", 0, OPTION_STRING, AT(shape), 0, 0, 0, NULL, BENCH, "NAME",
     "tinyllama-1.1b (default), llama-3.2-1b, llama-3.2-3b, llama-3-8b,\n"
     "llama-2-7b, mistral-7b, qwen2.5-0.5b, qwen2.5-1.5b, qwen3-0.6b,\n"
     "smollm2-135m, smollm2-360m or demo"},
    {"type", 0, OPTION_CHOICE, AT(type), 0, 0, 0, matrix_types, BENCH, "TYPE",
     "of the matrices: code (default, see --bits), q8_0, q4_0, q2_0,\nq1_0, f16, bf16, f32"},
    {"bits", 0, OPTION_REAL, AT(bits), AT(has_bits), 0.5, 4, NULL, BENCH, "B",
     "bits per weight for type code, 0.5 to 4 (default 1)"},
    {"embeddings", 0, OPTION_CHOICE, AT(embeddings), 0, 0, 0, embedding_types, BENCH, "TYPE",
     "type of embeddings and head: q8_0 (default), q4_0, f16, f32,\ncode4, code2.67, code2"},
    {"prompt", 0, OPTION_U32, AT(prompt_tokens), 0, 1, 1048576, NULL, BENCH, "N",
     "tokens of the prompt (default 512)"},
    {"decode", 0, OPTION_U32, AT(decode_tokens), 0, 1, 1048576, NULL, BENCH, "N",
     "tokens generated after it (default 128)"},
    {"cache", 0, OPTION_STRING, AT(cache), 0, 0, 0, NULL, BENCH, "FOLDER",
     "where random models are kept (default singularbit in\n"
     "$XDG_CACHE_HOME or ~/.cache)"},
    {"type", 0, OPTION_CHOICE, AT(type), 0, 0, 0, matrix_types, KERNELS, "TYPE",
     "only products with matrices of this type: code, q8_0, q4_0,\nq2_0, q1_0, f16, bf16, f32"},
    {"cpu", 0, OPTION_STRING, AT(cpu), 0, 0, 0, NULL, KERNELS, "LEVEL",
     "only this level, one that --version lists, and scalar"},
    {"quick", 0, OPTION_FLAG, AT(quick), 0, 0, 0, NULL, KERNELS, NULL,
     "fewer shapes, only the best level, shorter runs: some seconds"},
    {"prompt", 'p', OPTION_STRING, AT(prompt), 0, 0, 0, NULL, RUN | TOKENIZE, "TEXT",
     "the text itself"},
    {"file", 'f', OPTION_STRING, AT(prompt_file), 0, 0, 0, NULL, RUN | TOKENIZE, "FILE",
     "read the text from FILE (- is standard input)"},
    {"predict", 'n', OPTION_I64, AT(n_predict), 0, -1, 1e9, NULL, RUN, "N",
     "generate at most N tokens (default -1: until the end token\nor the context is full)"},
    {"temp", 0, OPTION_REAL, AT(temp), 0, 0, 100, NULL, RUN, "T",
     "temperature; 0 always takes the likeliest token (default 0.8)"},
    {"top-k", 0, OPTION_U32, AT(top_k), 0, 0, 4294967295.0, NULL, RUN, "K",
     "draw from the K likeliest tokens; 0: from all (default 40)"},
    {"top-p", 0, OPTION_REAL, AT(top_p), 0, 0, 1, NULL, RUN, "P",
     "draw from the likeliest tokens that sum up to P (default 0.95)"},
    {"min-p", 0, OPTION_REAL, AT(min_p), 0, 0, 1, NULL, RUN, "P",
     "drop tokens less likely than P times the likeliest\n(default 0.05)"},
    {"repeat-penalty", 0, OPTION_REAL, AT(repeat_penalty), 0, 0.01, 100, NULL, RUN, "R",
     "make tokens among the last 64 less likely (default 1: off)"},
    {"seed", 0, OPTION_U64, AT(seed), AT(has_seed), 0, 0, NULL, RUN, "N",
     "seed of the random draws (default: a new one, printed at the\nend)"},
    {"stop", 0, OPTION_LIST, AT(stop), 0, 0, 0, NULL, RUN, "TEXT",
     "stop before TEXT is printed; up to 8 times"},
    {"ignore-eos", 0, OPTION_FLAG, AT(ignore_eos), 0, 0, 0, NULL, RUN, NULL,
     "go on after the end token"},
    {"text", 0, OPTION_STRING, AT(text), 0, 0, 0, NULL, EVAL, "FILE", "the text to score"},
    {"tasks", 0, OPTION_STRING, AT(tasks), 0, 0, 0, NULL, EVAL, "FILE",
     "multiple-choice questions to answer, one JSON object a line\n"
     "(docs/tasks.md)"},
    {"against", 0, OPTION_STRING, AT(against), 0, 0, 0, NULL, EVAL, "REF",
     "also compare with the model REF: mean KL divergence and how\n"
     "often both find the same token likeliest; for questions its\n"
     "accuracy and how often both take the same choice"},
    {"ctx", 0, OPTION_U32, AT(context), 0, 2, 16777216, NULL, RUN | EVAL, "N",
     "context in tokens (default: the model's, for run at most 4096,\n"
     "for eval --text at most 512)"},
    {"ctx", 0, OPTION_U32, AT(context), 0, 2, 16777216, NULL, BENCH, "N",
     "context in tokens (default: prompt and generated tokens)"},
    {"threads", 0, OPTION_U32, AT(threads), 0, 1, 1024, NULL, KERNELS, "N",
     "threads of the runs with many (default: the host's cores)"},
    {"threads", 0, OPTION_U32, AT(threads), 0, 1, 1024, NULL, RANKS, "N",
     "threads per rank (default: the host's cores divided by the\nranks on it)"},
    {"batch", 0, OPTION_U32, AT(batch), 0, 1, 4096, NULL, RUN | EVAL | BENCH, "N",
     "most tokens in one micro-batch (default 64)"},
    {"wire", 0, OPTION_WIRE, AT(wire), 0, 0, 0, wire_types, RUN | EVAL | BENCH, "TYPE",
     "activations between ranks: f32 is exact (default); f16 and q8\n"
     "need less bandwidth and change the numbers a little"},
    {"kv", 0, OPTION_CACHE, AT(kv), 0, 0, 0, kv_types, RUN | EVAL | BENCH, "TYPE",
     "keys and values of past tokens: f16 (default); q8 takes half the\n"
     "memory and changes the numbers a little"},
    {"stats", 0, OPTION_FLAG, AT(stats), 0, 0, 0, NULL, RANKS, NULL,
     "print what each rank computed, waited for and sent"},
    {"json", 0, OPTION_STRING, AT(json), 0, 0, 0, NULL, RANKS | INSPECT | KERNELS, "FILE",
     "write the results to FILE as JSON"},
    {"no-verify", 0, OPTION_FLAG, AT(no_verify), 0, 0, 0, NULL, RUN | EVAL | BENCH, NULL,
     "do not compare the weights with the hashes in the file"},
    {"timeout", 0, OPTION_REAL, AT(timeout), 0, 1, 86400, NULL, RANKS, "S",
     "give up when a rank is silent for S seconds (default 60)"},
    {NULL, 0, OPTION_FLAG, 0, 0, 0, 0, NULL, 0, NULL, NULL},
};

#define MODEL_IS                                                                                   \
    "MODEL is a GGUF file (any shard of a set) or a Hugging Face folder with config.json and\n"    \
    "*.safetensors."

const struct command_rule command_rules[] = {
    {"compress", CMD_COMPRESS, "SRC", "compress a model into one GGUF file",
     "Compresses the model SRC, a Hugging Face folder or a GGUF file of full-precision weights,\n"
     "into one GGUF file. Under mpirun each rank works on its share of the matrices; the result\n"
     "does not depend on how many there are."},
    {"run", CMD_RUN, "MODEL", "generate text",
     "Continues a text: prints the prompt and what follows it.\n"
     "Without -p and -f: reads lines from standard input; all lines continue one text, each sees\n"
     "what came before; it is not a chat (Ctrl-C stops an answer, Ctrl-D ends). When the context\n"
     "is full the next line begins a new text.\n\n" MODEL_IS},
    {"eval", CMD_EVAL, "MODEL", "measure perplexity or accuracy, and distance from a reference",
     "Scores a text: perplexity over windows of --ctx tokens that do not overlap, and with "
     "--against\n"
     "the mean KL divergence from a reference model in nats. Or answers multiple-choice questions:\n"
     "each choice is scored as the continuation of its question, by its log-likelihood per byte.\n\n"
     MODEL_IS},
    {"inspect", CMD_INSPECT, "MODEL", "list what a model file holds",
     "Prints architecture, tokenizer, tensors and bits per weight.\n\n" MODEL_IS},
    {"tokenize", CMD_TOKENIZE, "MODEL", "print the token ids of a text",
     "Prints the token ids of a text, one a line, without a BOS token; special tokens written out "
     "in\n"
     "the text are plain text. Reads standard input when neither -p nor -f is given.\n\n"
     "MODEL is a GGUF file (one without weights will do), a Hugging Face folder, a tokenizer.json\n"
     "or a tokenizer.model."},
    {"bench kernels", CMD_BENCH_KERNELS, NULL, "measure every kernel on this machine",
     "Measures every operation, at every level of instructions that this CPU has, on one thread and\n"
     "at the best level on all, against the read bandwidth measured in the same run. Each result is\n"
     "first compared with the scalar one, bit for bit. Takes one to two minutes."},
    {"bench model", CMD_BENCH_MODEL, NULL, "measure prompt and decode speed of a model's shape",
     "Measures tokens per second of a model of some shape with random weights: writes it directly\n"
     "in its compressed form, once, into a cache, and runs it as sbit run does. Under mpirun the\n"
     "ranks share it; hosts that do not share the cache's folder need a copy of the file."},
    {NULL, CMD_HELP, NULL, NULL, NULL},
};

const struct command_rule *command_rule(enum command command)
{
    for (const struct command_rule *r = command_rules; r->name; r++) {
        if (r->command == command)
            return r;
    }
    return NULL;
}
