// What the engine is asked to do, in plain memory: it knows neither Python nor, outside kernel.cpp, any rule.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace adamas {

enum class Type { float32, float64 };

inline constexpr std::size_t max_state = 8;          // arrays of state per parameter
inline constexpr std::size_t max_coefficients = 16;  // numbers of a rule per step

// An array that is walked by strides (bytes), its axes in the order of the state.
struct View {
    char* data;
    Type type;
    std::size_t axes;
    const std::int64_t* shape;
    const std::int64_t* strides;
};

// The coefficients of one step: the rule's, in its order, and those of the stages around it.
struct Coefficients {
    double rule[max_coefficients];
    double scale, l2, decay;
};

// One parameter array with its gradient and state. State is dense; p and g are dense unless a view is given.
struct Block {
    std::size_t size = 0;
    void* p = nullptr;
    const void* g = nullptr;
    void* state[max_state] = {};
    const View* p_view = nullptr;
    const View* g_view = nullptr;
    Type type = Type::float32;
    const Coefficients* coefficients = nullptr;
};

// Steps elements begin to end of a block.
using Kernel = void (*)(const Block& block, std::size_t begin, std::size_t end);

struct RuleInfo {
    const char* name;
    const char* state_names;   // words
    const char* coefficients;  // words
    Kernel kernels[2];         // by Type
};

// Every rule, compiled for one instruction set.
struct Table {
    const char* isa;
    const RuleInfo* rules;
    std::size_t count;
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

// Steps all blocks of one rule, in parallel where it pays; the bits never depend on the number of threads.
void run(const Table& table, std::size_t rule, const std::vector<Block>& blocks);

// Threads that run() uses for large arrays: n >= 1, or 0 for as many as pay, up to what OpenMP says at each call.
void set_num_threads(int n);
int get_num_threads();

// The calling thread's treatment of denormal numbers: read and written as zero, or not. Returns the previous one.
bool set_flush_denormals(bool on);

}  // namespace adamas
