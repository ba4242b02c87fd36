// What the engine is asked to do, in plain memory: it knows neither Python nor, outside kernel.cpp, any rule.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <vector>

namespace adamas {

// How numbers are stored. q8 is for state alone: bytes and scales (q8.hpp).
enum class Type : std::uint8_t { float64, float32, bfloat16, float16, q8 };

// For what all instruction sets share: inlined, so that none can hand its own version to the others.
#define ADAMAS_INLINE [[gnu::always_inline]] constexpr

ADAMAS_INLINE std::int64_t itemsize(Type type) {
    return type == Type::float64 ? 8 : type == Type::float32 ? 4 : type == Type::q8 ? 1 : 2;
}

// What the rules compute in for a parameter of this type.
ADAMAS_INLINE Type arithmetic(Type type) {
    return type == Type::float64 ? type : Type::float32;
}

// Elements that share random numbers and, in q8, a scale; threads share an array at multiples of so many.
inline constexpr std::size_t block_size = 256;

ADAMAS_INLINE std::size_t blocks_of(std::size_t elements) {
    return (elements + block_size - 1) / block_size;
}

inline constexpr std::size_t max_state = 8;              // arrays of state per parameter
inline constexpr std::size_t max_slots = max_state + 2;  // and an average and a copy
inline constexpr std::size_t max_coefficients = 16;      // numbers of a rule per step

// An array that is walked by strides (bytes), its axes in the order of the state.
struct View {
    char* data;
    std::size_t axes;
    const std::int64_t* shape;
    const std::int64_t* strides;
};

// The coefficients of one step: the rule's, in its order, and those of the stages around it.
struct Coefficients {
    double rule[max_coefficients];
    double scale, clip, l2, decay, ema, update_clip, trust;
    bool frozen, cautious;
    std::uint64_t key;  // of the random numbers of this step

    // Whether a stage needs to know the whole array.
    ADAMAS_INLINE bool reduces() const {
        return cautious || trust != 0 || update_clip < std::numeric_limits<double>::infinity();
    }
};

// Numbers in memory: dense in the order of the state unless a view is given.
struct Operand {
    void* data = nullptr;
    Type type = Type::float32;
    const View* view = nullptr;
};

// What is remembered of one parameter array, dense, in C order if the state is in q8.
struct Slots {
    void* state[max_state] = {};  // in the rule's order
    void* average = nullptr;      // of the arithmetic's type; null if there is none
    void* copy = nullptr;
    Type state_type = Type::float32, copy_type = Type::bfloat16;
    std::uint64_t array = 0;  // its place among the arrays of the optimizer
    std::uint64_t first = 0;  // the number of its first block there, for the random numbers
};

// A sum is made of blocks of so many elements, wherever these lie: in each, so many partial sums.
inline constexpr std::size_t sum_block = 4096, sum_lanes = 16;

// Adds partial sums pairwise.
ADAMAS_INLINE double fold(double* lanes) {
    for (std::size_t half = sum_lanes / 2; half > 0; half /= 2)
        for (std::size_t k = 0; k < half; ++k) lanes[k] += lanes[k + half];
    return lanes[0];
}

// What a step saw of some elements: sums of squares of the gradients as they were given, of the parameters after the
// step and of their changes; the sum of the effective learning rates and, NaN aside, the extremes; and how many
// gradients were not finite, or cut by the clip.
struct Statistics {
    double grad_squares = 0, param_squares = 0, change_squares = 0;
    double rates = 0, least_rate = 0, most_rate = 0;
    std::uint64_t nonfinite = 0, clipped = 0;

    void add(const Statistics& other) {
        grad_squares += other.grad_squares;
        param_squares += other.param_squares;
        change_squares += other.change_squares;
        rates += other.rates;
        least_rate = std::min(least_rate, other.least_rate);
        most_rate = std::max(most_rate, other.most_rate);
        nonfinite += other.nonfinite;
        clipped += other.clipped;
    }
};

// What the stages that look at a whole array need of it: how many changes go against the gradient, and the sums of the
// squares of what the update's clip measures, of those changes, and of the parameters, and of their products.
struct Sums {
    double agreeing = 0, units = 0, changes = 0, overlap = 0, params = 0;

    void add(const Sums& other) {
        agreeing += other.agreeing;
        units += other.units;
        changes += other.changes;
        overlap += other.overlap;
        params += other.params;
    }
};

// What those stages multiply the change by: where the mask is 1, and everywhere.
struct Whole {
    double mask = 1, factor = 1;
};

// One parameter array with its gradient, and what is remembered of it; or some of its rows, one after the other, with
// the gradients of those: then the elements are counted, and the gradients lie, without the rows between.
struct Block {
    std::size_t size = 0;
    Operand p, g;
    const std::int64_t* rows = nullptr;
    std::size_t width = 1;  // of a row
    const Slots* slots = nullptr;
    bool zero = false;        // the gradient, when it has been used
    bool stochastic = false;  // rounding to bfloat16; to q8 it always is
    const Coefficients* coefficients = nullptr;
    Statistics* statistics = nullptr;  // one for each `sum_block` elements, if they are wanted
    Sums* sums = nullptr;              // the same, if the coefficients ask for them
    Whole whole;                       // made of the sums
};

// The finaliser of splitmix64 (Steele, Lea and Flood 2014): a bijection without visible structure.
ADAMAS_INLINE std::uint64_t mix64(std::uint64_t x) {
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
}

// How many statistics or sums there are of a block; each row has its own.
inline std::size_t parts(const Block& block) {
    const std::size_t size = block.rows ? block.width : block.size, count = block.rows ? block.size / block.width : 1;
    return count * ((size + sum_block - 1) / sum_block);
}

// A polynomial P for steps whose corrections of v lie within a factor of 16 (lapses.hpp): P(1), and the coefficients of
// (P(tau) - P(1)) / (tau - 1), the constant one first.
inline constexpr int most_terms = 16;
struct Piece {
    float center;
    int terms;  // 1, 4, 8, 12 or 16
    float coefficients[most_terms];
};

// What steps without a gradient did to a row: p += lost * p - kept * m * changes, where the changes are a number, or
// the sum of pieces.
struct Lapse {
    float lost, kept, m_factor, v_factor, linear, epsilon;
    bool adaptive;
    const Piece* pieces;
    std::size_t count;
};

// Applies one to a row; the arrays of state are stored as a type, or null.
using ApplyLapse = void (*)(const Lapse& lapse, std::size_t size, float* p, void* m, void* v, const void* v_max,
                            Type type);

// Runs of a rule side by side, in float64: every array has the first element of each, then the second of each.
struct Columns {
    std::size_t runs = 0, size = 0;   // size: the elements of a run
    const double* numbers = nullptr;  // of each run: the rule's coefficients in its order, l2, decay and frozen
    double* p = nullptr;
    const double* g = nullptr;
    double* state[max_state] = {};
};

using StepColumns = void (*)(const Columns& of);

// Steps elements begin to end of a block, or sums them up; with statistics or sums, begin is a multiple of `sum_block`,
// and end is too or the size.
using Kernel = void (*)(const Block& block, std::size_t begin, std::size_t end);

// Adds the squares of unit * g of elements begin to end of a block to the partial sums, the first one to `lane`.
using Squares = void (*)(const Block& block, std::size_t begin, std::size_t end, double unit, std::size_t lane,
                         double* sums);

struct RuleInfo {
    const char* name;
    const char* state_names;   // words
    const char* coefficients;  // words
    bool has_rate;             // an effective learning rate
    Kernel in_float, in_double;
    Kernel sums_in_float, sums_in_double;
    StepColumns step_columns;
};

// Bytes that are read, and perhaps written as they were.
struct Region {
    char* data;
    std::size_t size;
    bool written;
};

// Every rule, compiled for one instruction set.
struct Table {
    const char* isa;
    const RuleInfo* rules;
    std::size_t count;
    Squares squares;
    Whole (*whole)(const Coefficients& c, std::size_t size, const Sums& sums);
    ApplyLapse lapse;
    void (*move)(const Region* regions, std::size_t count, std::size_t begin, std::size_t end, std::size_t tiles);
};

#ifdef ADAMAS_X86
namespace baseline {
const Table& table();
}
namespace v3 {
const Table& table();
}
namespace v4 {
const Table& table();
}
#else
namespace baseline {
const Table& table();
}
#endif

// The instruction sets that this machine can run, best first.
std::vector<const Table*> supported();

// Returns the rule's index in every table; throws std::invalid_argument.
std::size_t find_rule(const std::string& name);

// Steps all blocks of one rule, in parallel where it pays; the bits never depend on the number of threads. All of the
// blocks have room for statistics, or none.
void run(const Table& table, std::size_t rule, std::vector<Block>& blocks);

// Steps runs side by side, on this thread.
void run(const Table& table, std::size_t rule, const Columns& columns);

// Returns the sum of the squares of unit * g over all blocks, in float64. It depends neither on the number of threads
// nor on how the gradients are cut into blocks.
double sum_of_squares(const Table& table, const std::vector<Block>& blocks, double unit);

// Calls both, the second on another thread meanwhile where that pays. Neither may throw.
void beside(const std::function<void()>& here, const std::function<void()>& there);

// How many threads a number of elements is worth.
int threads_for(std::size_t elements);

// Calls body(i) for i = 0 to n - 1, each on a thread of its own that flushes denormals; body must not throw.
void in_parallel(int n, const std::function<void(int)>& body);

// The arrays whose rows are stepped together: of a parameter, and of its state.
struct RowArrays {
    const char* data[max_state + 1];
    std::size_t bytes[max_state + 1];  // of a row
    std::size_t count = 0;

    ADAMAS_INLINE RowArrays(const Operand& p, const Slots& slots, std::size_t width) {
        add(p.data, p.type, width);
        for (void* state : slots.state) add(state, slots.state_type, width);
    }

    ADAMAS_INLINE void add(void* array, Type type, std::size_t width) {
        if (!array) return;
        data[count] = static_cast<const char*>(array);
        bytes[count++] = width * static_cast<std::size_t>(itemsize(type));
    }

    // Asks the cache for a row. Always inlined: GCC takes a function that only prefetches for one without effect, and
    // drops the calls.
    ADAMAS_INLINE void prefetch(std::size_t row) const {
        constexpr std::size_t line = 64;
        for (std::size_t i = 0; i < count; ++i) {
            const char *const first = data[i] + row * bytes[i], *const last = first + bytes[i] - 1;
            for (const char* at = first; at < last; at += line) __builtin_prefetch(at);
            __builtin_prefetch(last);  // few rows begin with a line
        }
    }
};

// Threads that run() uses for large arrays: n >= 1, or 0 for as many as pay, up to what OpenMP says at each call.
void set_num_threads(int n);
int get_num_threads();

// The calling thread's treatment of denormal numbers: read and written as zero, or not. Returns the previous one.
bool set_flush_denormals(bool on);

}  // namespace adamas
