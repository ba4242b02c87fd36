// Threads, floating-point mode and the choice of instruction set.
#include "engine.hpp"

#include <omp.h>
#include <pthread.h>
#include <sys/stat.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <stdexcept>

#ifdef ADAMAS_X86
#include <immintrin.h>
#endif

namespace adamas {

namespace {

// --- floating-point mode ---------------------------------------------------------------------------------------------

#ifdef ADAMAS_X86
using Mode = unsigned;
constexpr Mode flush = 0x8040;  // MXCSR: flush results (bit 15) and inputs (bit 6) to zero
Mode get_mode() {
    return _mm_getcsr();
}
void set_mode(Mode mode) {
    _mm_setcsr(mode);
}
#else
using Mode = std::uint64_t;
constexpr Mode flush = Mode{1} << 24;  // FPCR.FZ
Mode get_mode() {
    Mode mode;
    asm volatile("mrs %0, fpcr" : "=r"(mode));
    return mode;
}
void set_mode(Mode mode) {
    asm volatile("msr fpcr, %0" : : "r"(mode));
}
#endif

// Flushes denormals on this thread while it lives. Moments of a parameter without gradient become denormal after some
// 900 steps and stay so; arithmetic on them is 15 to 38 times slower.
struct Flushing {
    Mode before = get_mode();
    Flushing() { set_mode(before | flush); }
    ~Flushing() { set_mode(before); }
};

// --- threads ---------------------------------------------------------------------------------------------------------

constexpr std::size_t grain = 16384;  // elements below which another thread costs more than it saves

using Clock = std::chrono::steady_clock;

std::atomic<int> threads{0};      // as the user set it; 0: as many as pay
std::atomic<bool> forked{false};  // libgomp's threads do not survive a fork, and waiting for them would hang
bool had_threads = true;

void before_fork() {
#ifdef __linux__
    struct stat tasks;
    had_threads = stat("/proc/self/task", &tasks) != 0 || tasks.st_nlink > 3;  // "." and ".." and this thread
#endif
}

void in_child() {
    if (had_threads) forked = true;
}

[[maybe_unused]] const int registered = pthread_atfork(before_fork, nullptr, in_child);

// Whether more threads pay at present. NumPy's matrix products have a pool of their own, whose threads keep turning for
// a while; where both pools want all cores, a step can wait 8 ms for a thread that has 50 microseconds of work. So
// after a step that took longer than it would have alone, the next ones run alone: as many as take what was lost, or 20
// times that if it happens again and again. Not so a step that is long enough to gain more by threads than was lost.
class Patience {
public:
    bool together(std::size_t elements) {
        const auto left = alone_.load(std::memory_order_relaxed);
        if (left <= 0 || elements >= worth_.load(std::memory_order_relaxed)) return true;
        alone_.store(left - 1, std::memory_order_relaxed);
        return false;
    }

    bool would_share() const { return alone_.load(std::memory_order_relaxed) <= 0; }

    // n threads took `all` for a number of elements, whose first share was finished after `own`.
    void judge(int n, std::size_t elements, Clock::duration all, Clock::duration own) {
        const Clock::duration serial = n * own + Clock::duration(1), lost = all - serial;
        const auto before = penalty_.load(std::memory_order_relaxed);
        const bool paid = lost <= tolerance;
        const auto penalty = paid ? before / 2 : std::min<Clock::rep>(4 * before + 15, 1023);
        penalty_.store(penalty, std::memory_order_relaxed);
        if (!paid) worth_.store(elements * n / (n - 1) * (lost / serial + 1), std::memory_order_relaxed);
        const auto times = std::min<Clock::rep>(1 + before, 20);
        alone_.store(paid ? penalty : std::max(penalty, times * lost / serial), std::memory_order_relaxed);
    }

private:
    static constexpr Clock::duration tolerance = std::chrono::microseconds(50);  // what waking a thread takes
    std::atomic<Clock::rep> alone_{0}, penalty_{0};                              // steps
    std::atomic<std::size_t> worth_{0};                                          // elements
};

Patience patience;

// Calls body(i) for i = 0 to n - 1, each on its own thread, in a static order. The only place that knows OpenMP.
template <class Body>
void parallel_for(int n, const Body& body) {
    if (n <= 1) return body(0);
#pragma omp parallel for num_threads(n) schedule(static, 1)
    for (int i = 0; i < n; ++i) body(i);
}

}  // namespace

void set_num_threads(int n) {
    threads = n;
}

int get_num_threads() {
    if (forked) return 1;
    const int n = threads;
    return n > 0 ? n : omp_get_max_threads();
}

bool set_flush_denormals(bool on) {
    const Mode before = get_mode();
    set_mode(on ? before | flush : before & ~flush);
    return (before & flush) == flush;
}

std::vector<const Table*> supported() {
    std::vector<const Table*> tables{&baseline::table()};
#ifdef ADAMAS_X86
    const bool has_v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                        __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
    const bool has_v4 = has_v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                        __builtin_cpu_supports("avx512vl");
    if (has_v3) tables.insert(tables.begin(), &v3::table());
    if (has_v4) tables.insert(tables.begin(), &v4::table());
#endif
    return tables;
}

std::size_t find_rule(const std::string& name) {
    const Table& table = baseline::table();
    for (std::size_t i = 0; i < table.count; ++i)
        if (name == table.rules[i].name) return i;
    throw std::invalid_argument("the engine has no rule '" + name + "'");
}

int threads_for(std::size_t elements) {
    return static_cast<int>(std::clamp<std::size_t>(elements / grain, 1, get_num_threads()));
}

void in_parallel(int n, const std::function<void(int)>& body) {
    parallel_for(n, [&](int i) {
        const Flushing mode;
        body(i);
    });
}

namespace {

std::size_t total_size(const std::vector<Block>& blocks) {
    std::size_t total = 0;
    for (const Block& block : blocks) total += block.size;
    return total;
}

}  // namespace

namespace {

// Calls body(block, begin, end) for all elements of all blocks, on n threads: thread i takes elements i*share to
// (i+1)*share of the concatenation, cut at multiples of `whole`. Returns how long this thread worked.
template <class Body>
Clock::duration share_out(int n, const std::vector<Block>& blocks, std::size_t whole, const Body& body) {
    const std::size_t total = total_size(blocks), share = (total + n - 1) / n;
    const auto inside = [whole](const Block& block, std::size_t start, std::size_t position) {
        if (position <= start) return std::size_t{0};
        const std::size_t unit = block.rows ? block.width : whole;
        return std::min(block.size, (position - start + unit - 1) / unit * unit);
    };
    const auto begun = Clock::now();
    auto own = begun;
    parallel_for(n, [&](int i) {
        const Flushing mode;
        const std::size_t first = i * share, last = i + 1 == n ? total : first + share;
        std::size_t start = 0;
        for (const Block& block : blocks) {
            if (start >= last) break;
            const std::size_t begin = inside(block, start, first), end = inside(block, start, last);
            if (begin < end) body(block, begin, end);
            start += block.size;
        }
        if (i == 0) own = Clock::now();
    });
    return own - begun;
}

// Finds what the stages need to know of whole arrays.
void reduce(int n, const Table& table, const RuleInfo& info, std::vector<Block>& blocks) {
    std::size_t count = 0;
    for (const Block& block : blocks) count += block.coefficients->reduces() ? parts(block) : 0;
    if (count == 0) return;
    std::vector<Sums> sums(count);
    Sums* next = sums.data();
    for (Block& block : blocks) {
        block.sums = block.coefficients->reduces() ? next : nullptr;
        next += block.sums ? parts(block) : 0;
    }
    share_out(n, blocks, sum_block, [&](const Block& block, std::size_t begin, std::size_t end) {
        if (block.sums)
            (arithmetic(block.p.type) == Type::float64 ? info.sums_in_double : info.sums_in_float)(block, begin, end);
    });
    const Flushing mode;
    for (Block& block : blocks) {
        if (!block.sums) continue;
        Sums all = block.sums[0];
        for (std::size_t i = 1; i < parts(block); ++i) all.add(block.sums[i]);
        block.whole = table.whole(*block.coefficients, block.size, all);
        block.sums = nullptr;
    }
}

}  // namespace

void run(const Table& table, std::size_t rule, const Columns& columns) {
    const Flushing flushing;
    table.rules[rule].step_columns(columns);
}

void run(const Table& table, std::size_t rule, std::vector<Block>& blocks) {
    const std::size_t total = total_size(blocks);
    int n = threads_for(total);
    const bool chosen = threads > 0;  // then no judgement of ours
    if (n > 1 && !chosen && !patience.together(total)) n = 1;
    const RuleInfo& info = table.rules[rule];
    reduce(n, table, info, blocks);
    const std::size_t whole = !blocks.empty() && blocks.front().statistics ? sum_block : block_size;
    const auto begun = Clock::now();
    const auto own = share_out(n, blocks, whole, [&](const Block& block, std::size_t begin, std::size_t end) {
        (arithmetic(block.p.type) == Type::float64 ? info.in_double : info.in_float)(block, begin, end);
    });
    if (n > 1 && !chosen) patience.judge(n, total, Clock::now() - begun, own);
}

void beside(const std::function<void()>& here, const std::function<void()>& there) {
    const bool pays = get_num_threads() > 1 && (threads > 0 || patience.would_share());
    parallel_for(pays ? 2 : 1, [&](int i) {
        if (i == 0) here();
        if (i == 1 || !pays) there();
    });
}

double sum_of_squares(const Table& table, const std::vector<Block>& blocks, double unit) {
    const std::size_t total = total_size(blocks), count = (total + sum_block - 1) / sum_block;
    const int n = static_cast<int>(std::min<std::size_t>(threads_for(total), std::max<std::size_t>(count, 1)));
    std::vector<double> sums(count);
    parallel_for(n, [&](int i) {
        const Flushing mode;
        const std::size_t first = count * i / n * sum_block, last = std::min(count * (i + 1) / n * sum_block, total);
        double lanes[sum_lanes] = {};
        std::size_t start = 0;  // of the block, in the concatenation of all
        for (const Block& block : blocks) {
            std::size_t position = std::max(first, start);
            const std::size_t stop = std::min(last, start + block.size);
            while (position < stop) {
                const std::size_t full = (position / sum_block + 1) * sum_block, until = std::min(full, stop);
                table.squares(block, position - start, until - start, unit, position % sum_lanes, lanes);
                if (until == full || until == total) {
                    sums[position / sum_block] = fold(lanes);
                    std::fill(lanes, lanes + sum_lanes, 0.0);
                }
                position = until;
            }
            start += block.size;
        }
    });
    double sum = 0;
    for (const double part : sums) sum += part;
    return sum;
}

}  // namespace adamas
