#include "lapses.hpp"

#include <cmath>
#include <cstring>
#include <stdexcept>

namespace adamas {

namespace {

constexpr double pi = 3.14159265358979323846;
constexpr double negligible = 0x1p-26;                // of a sum, what is left out of it
constexpr double vanished = 60 * 0.6931471805599453;  // the logarithm of how far a mean falls until nothing is left

// The place of a word in a text, -1 if it is not there.
int place_of(const char* text, const char* word) {
    if (!word) return -1;
    const std::string words = std::string(" ") + text + " ", one = std::string(" ") + word + " ";
    const std::size_t at = words.find(one);
    return at == std::string::npos ? -1 : static_cast<int>(std::count(words.begin(), words.begin() + at, ' '));
}

// Chebyshev polynomials of [0, 1] at the nodes, and their coefficients as polynomials of tau = 2x - 1.
struct Chebyshev {
    double nodes[most_terms], transform[most_terms][most_terms], powers[most_terms][most_terms] = {};

    Chebyshev() {
        for (int i = 0; i < most_terms; ++i) nodes[i] = (1 + std::cos(pi * (i + 0.5) / most_terms)) / 2;
        for (int k = 0; k < most_terms; ++k)
            for (int i = 0; i < most_terms; ++i)
                transform[k][i] = (k == 0 ? 1.0 : 2.0) / most_terms * std::cos(k * pi * (i + 0.5) / most_terms);
        powers[0][0] = powers[1][1] = 1;
        for (int k = 2; k < most_terms; ++k)
            for (int p = 0; p <= k; ++p) powers[k][p] = (p > 0 ? 2 * powers[k - 1][p - 1] : 0) - powers[k - 2][p];
    }
};

const Chebyshev chebyshev;

}  // namespace

struct Lapses::Table {
    Operand p;
    Slots slots;
    Array array;
    std::size_t width = 0, height = 0, count = 0;
    std::int32_t* last = nullptr;
    const std::int64_t* rows = nullptr;  // null: all

    std::size_t row(std::size_t i) const { return rows ? static_cast<std::size_t>(rows[i]) : i; }
};

Lapses::Lapses(const std::string& rule, std::size_t capacity)
    : rule_(rule),
      work_(rule, Options{}),
      info_(&active_table().rules[find_rule(rule)]),
      capacity_(std::max<std::size_t>(capacity, 2)) {
    static constexpr Form forms[] = {
        {"SGD", -1, -1, -1, nullptr, nullptr, nullptr, nullptr, nullptr},
        {"Momentum", 0, -1, -1, "learning_rate", "momentum", nullptr, nullptr, nullptr},
        {"AdaGrad", -1, -1, -1, nullptr, nullptr, nullptr, nullptr, nullptr},
        {"RMSProp", -1, 0, -1, nullptr, nullptr, "beta2", nullptr, nullptr},
        {"Adam", 0, 1, -1, "step", "beta1", "beta2", "root_scale", "epsilon"},
        {"AMSGrad", 0, 1, 2, "step", "beta1", "beta2", "root_scale", "epsilon"},
    };
    for (const Form& form : forms)
        if (rule == form.rule) form_ = &form;
    if (form_) {
        const char* const names = info_->coefficients;
        step_ = place_of(names, form_->step);
        beta1_ = place_of(names, form_->beta1);
        beta2_ = place_of(names, form_->beta2);
        root_scale_ = place_of(names, form_->root_scale);
        epsilon_ = place_of(names, form_->epsilon);
        nesterov_ = place_of(names, "nesterov");
        rate_ = place_of(names, "learning_rate");
    }
    steps_.resize(2);
}

double Lapses::number(const Step& step, int place, double otherwise) const {
    return place < 0 ? otherwise : step.coefficients.rule[place];
}

void Lapses::record(nb::handle coefficients, nb::handle stages, std::uint64_t t) {
    work_.begin();
    Step step{work_.add_coefficients(coefficients, stages, t)};
    Coefficients& c = step.coefficients;
    c.scale = 1;
    c.clip = std::numeric_limits<double>::infinity();
    const Step& before = at(count_);
    step.decayed = before.decayed + std::log1p(-c.decay);
    step.largest_rate = std::max(before.largest_rate, number(step, rate_, 0));
    ++count_;
    if (steps_.size() < capacity_) {  // it grows to its capacity
        steps_.resize(std::min<std::size_t>(capacity_, std::max<std::size_t>(count_ + 1, steps_.size())));
    }
    steps_[count_ % capacity_] = step;
}

// --- programs --------------------------------------------------------------------------------------------------------

// Where the b_j of a piece that begins with b lie around: as many as matter shall be within a factor of 4.
double Lapses::first_center(double b, const Step& step, const Program& program) const {
    const double beta1 = number(step, beta1_, 0), beta2 = form_->v_max < 0 ? number(step, beta2_, 0) : 1.0;
    const double ratio = beta1 / std::sqrt(beta2);
    if (!(ratio < 1) || ratio == 0) return b / 4;
    const double scale = number(step, root_scale_, 1), power = 1 - 1 / (scale * scale);  // beta2 to the number of steps
    const double raw_beta2 = number(step, beta2_, 0);
    const auto after = [&](double lag) {
        return program.root_power * std::pow(beta2, lag / 2) / std::sqrt(1 - power * std::pow(raw_beta2, lag));
    };
    const double end = after(26 * 0.6931471805599453 / -std::log(ratio));
    if (b > 16 * end) return b / 4;
    return std::max(b / 4, std::min(std::sqrt(b * after(3 / (1 - ratio))), 4 * end));
}

void Lapses::add_term(Program& program, std::uint64_t step) const {
    const Step& now = at(step);
    const double beta1 = number(now, beta1_, 0), beta2 = number(now, beta2_, 1), epsilon = number(now, epsilon_, 0);
    program.grown *= 1 - now.coefficients.decay;
    program.beta1_power *= beta1;
    if (form_->v_max < 0) program.root_power *= std::sqrt(beta2);
    ++program.terms;
    double numerator = number(now, step_, 0) * program.beta1_power / program.grown;
    if (nesterov_ >= 0 && now.coefficients.rule[nesterov_] != 0) numerator *= beta1;
    if (now.coefficients.frozen) numerator = 0;
    if (root_scale_ < 0) {  // a sum of numbers
        if (program.sums.empty()) program.sums.emplace_back(Sums{1});
        program.sums[0].nodes[0] += numerator;
        program.weight += numerator;
        return;
    }
    const double b = number(now, root_scale_, 1) * program.root_power;
    if (program.sums.empty() || b < program.sums.back().center / 4)
        program.sums.emplace_back(Sums{first_center(b, now, program)});
    if (numerator == 0) return;
    Sums& sums = program.sums.back();
    const double r = b / sums.center - 1;
    for (int i = 0; i < most_terms; ++i) sums.nodes[i] += numerator / (1 + chebyshev.nodes[i] * r);
    const bool falls = beta1 * beta1 < (form_->v_max < 0 ? beta2 : 1.0);
    program.weight += falls ? numerator / b : numerator / (1e6 * b + epsilon);
}

// Whether what further terms could add is negligible, wherever in its range v is, at the learning rates up to now.
bool Lapses::complete(const Program& program, const Step& latest) const {
    if (program.terms == 0) return false;
    const double beta1 = number(latest, beta1_, 0), beta2 = number(latest, beta2_, 1);
    const double epsilon = number(latest, epsilon_, 0), grown = program.grown * (1 - latest.coefficients.decay);
    if (beta1 == 0) return true;
    const double root = root_scale_ < 0 || form_->v_max >= 0 ? 1.0 : std::sqrt(beta2);
    const bool falls = beta1 < root;
    const double ratio = (falls ? beta1 / root : beta1) / (1 - latest.coefficients.decay);
    const auto terms = static_cast<double>(program.terms);
    if (terms * -std::log(falls ? beta1 / root : beta1) > vanished * (falls ? 1 : 4)) return true;
    if (ratio >= 1) return false;
    const double largest = latest.largest_rate / (root_scale_ < 0 ? 1 : 1 - beta1);
    const double next =
        falls ? program.beta1_power / program.root_power * ratio : program.beta1_power * ratio / epsilon;
    return largest * next / ((1 - ratio) * grown) <= negligible * program.weight;
}

void Lapses::compile(Program& program) {
    program.pieces.clear();
    for (const Sums& sums : program.sums) {
        double a[most_terms] = {}, rest = 0;
        for (int k = 0; k < most_terms; ++k)
            for (int i = 0; i < most_terms; ++i) a[k] += chebyshev.transform[k][i] * sums.nodes[i];
        Piece piece = {static_cast<float>(sums.center), most_terms, {}};
        for (int k = most_terms - 1; k > 0; --k) {
            rest += std::fabs(a[k]);
            if (rest > 0x1p-25 * std::fabs(a[0])) break;
            if (k == 1 || k % 4 == 0) piece.terms = k;
        }
        double c[most_terms] = {};  // of the powers of tau
        for (int power = 0; power < piece.terms; ++power)
            for (int k = power; k < piece.terms; ++k) c[power] += a[k] * chebyshev.powers[k][power];
        for (int power = piece.terms - 2; power >= 0; --power) c[power] += c[power + 1];  // divided by tau - 1
        for (int power = 0; power < piece.terms; ++power) piece.coefficients[power] = static_cast<float>(c[power]);
        program.pieces.push_back(piece);
    }
    program.compiled = program.terms;
}

// Adds the terms of the steps that were taken since, and finds what all of them come to.
void Lapses::bring_up(Program& program) const {
    const Step& latest = at(count_);
    const std::uint64_t missed = count_ - program.s;
    if (form_->m >= 0 && program.final_rate < latest.largest_rate) {
        while (program.terms < missed && !complete(program, latest)) add_term(program, program.s + program.terms + 1);
        if (complete(program, latest)) program.final_rate = latest.largest_rate;
        if (program.compiled != program.terms && root_scale_ >= 0) compile(program);
    }
    const double lost = std::expm1(latest.decayed - at(program.s).decayed), k = static_cast<double>(missed);
    Lapse& lapse = program.lapse;
    lapse.lost = static_cast<float>(lost);
    lapse.kept = static_cast<float>(1 + lost);
    lapse.m_factor = static_cast<float>(std::pow(number(latest, beta1_, 0), k));
    lapse.v_factor = static_cast<float>(std::pow(number(latest, beta2_, 0), k));
    lapse.linear = program.sums.empty() ? 0.0f : static_cast<float>(program.sums[0].nodes[0]);
    lapse.epsilon = static_cast<float>(number(latest, epsilon_, 0));
    lapse.adaptive = root_scale_ >= 0;
    lapse.pieces = program.pieces.data();
    lapse.count = program.pieces.size();
    program.present = count_;
}

// --- rows ------------------------------------------------------------------------------------------------------------

Lapses::Table Lapses::read(nb::handle p, nb::tuple state, nb::handle last, nb::handle rows) const {
    Table table;
    Array slot;
    Rows some;
    bool right = read_array(p.ptr(), table.array) && table.array.axes > 0 && !table.array.complex &&
                 table.array.writeable && state.size() == work_.slot_count();
    if (right) {
        const Layout layout(table.array, nullptr);
        right = layout.dense(table.array) && read_counts(last.ptr(), table.last, table.height) &&
                static_cast<std::int64_t>(table.height) == table.array.shape[0];
        table.slots.state_type = arithmetic(layout.type);
        for (std::size_t i = 0; right && i < state.size(); ++i)
            right = read_array(state[i].ptr(), slot) && slot.type != Type::q8 &&
                    work_.read_slot(layout, i, slot, table.slots);
        table.p = {table.array.data, layout.type, nullptr};
        table.width = table.height ? layout.size / table.height : 0;
        table.count = table.height;
    }
    if (right && !rows.is_none()) {
        right = read_rows(rows.ptr(), some) && some.inside(static_cast<std::int64_t>(table.height));
        table.rows = some.data;
        table.count = some.count;
    }
    if (!right) throw std::invalid_argument("a table, its state, the last step of each row, and rows of it");
    return table;
}

// Lists the rows that are behind, each once, and the steps in which they were stepped last; they count as stepped now.
// Throws, with nothing changed, if such a step is not remembered.
void Lapses::find(const Table& table) {
    if (found_.size() < std::min<std::size_t>(capacity_, count_ + 1))
        found_.resize(std::min<std::size_t>(capacity_, 2 * count_ + 1));
    ++finding_;
    needed_.clear();
    behind_.clear();
    for (std::size_t i = 0; i < table.count; ++i) {
        const std::size_t row = table.row(i);
        const auto s = static_cast<std::uint64_t>(table.last[row]);
        if (s == count_) continue;
        if (s > count_ || count_ - s >= capacity_) {
            for (const Behind& other : behind_) table.last[other.row] = static_cast<std::int32_t>(other.s);
            throw std::invalid_argument("a row was stepped too long ago");
        }
        table.last[row] = static_cast<std::int32_t>(count_);
        behind_.push_back({row, s});
        std::uint64_t& found = found_[s % capacity_];
        if (found != finding_) needed_.push_back(s);
        found = finding_;
    }
}

// Brings up to date what is known of the steps after those.
void Lapses::bring_up() {
    if (programs_.size() < found_.size()) programs_.resize(found_.size());
    const int n = threads_for(needed_.size() * 512);
    const auto count = static_cast<int>(needed_.size());
    in_parallel(n, [&](int i) {
        for (int k = count * i / n; k < count * (i + 1) / n; ++k) {
            const std::uint64_t s = needed_[static_cast<std::size_t>(k)];
            Program& program = programs_[s % capacity_];
            if (program.s != s || program.present == 0) {
                program = Program();
                program.s = s;
            }
            if (program.present != count_) bring_up(program);
        }
    });
}

// Steps a row as often as it missed, with a gradient of zero.
void Lapses::replay(const Table& table, std::size_t row, std::uint64_t s) const {
    static constexpr double zeros[4096] = {};
    const auto size = static_cast<std::size_t>(itemsize(table.p.type));
    const Kernel kernel = arithmetic(table.p.type) == Type::float64 ? info_->in_double : info_->in_float;
    const Type type = arithmetic(table.p.type);
    for (std::size_t first = 0; first < table.width; first += std::size(zeros)) {
        const std::size_t offset = row * table.width + first;
        Slots slots = table.slots;
        for (void*& state : slots.state)
            if (state)
                state = static_cast<char*>(state) + offset * static_cast<std::size_t>(itemsize(slots.state_type));
        Block block;
        block.size = std::min(std::size(zeros), table.width - first);
        block.p = {static_cast<char*>(table.p.data) + offset * size, table.p.type, nullptr};
        block.g = {const_cast<double*>(zeros), type, nullptr};
        block.slots = &slots;
        for (std::uint64_t step = s + 1; step <= count_; ++step) {
            block.coefficients = &at(step).coefficients;
            kernel(block, 0, block.size);
        }
    }
}

void Lapses::apply(const Table& table, bool exact) const {
    constexpr std::size_t ahead = 6;
    const ApplyLapse lapse = active_table().lapse;
    const std::size_t count = behind_.size();
    const RowArrays arrays(table.p, table.slots, table.width);
    const auto n = static_cast<std::size_t>(threads_for(count * table.width));
    in_parallel(static_cast<int>(n), [&](int thread) {
        const auto i = static_cast<std::size_t>(thread), end = count * (i + 1) / n;
        for (std::size_t k = count * i / n; k < end; ++k) {
            if (k + ahead < end) arrays.prefetch(behind_[k + ahead].row);
            const auto [row, s] = behind_[k];
            if (!exact) {
                replay(table, row, s);
                continue;
            }
            const std::size_t offset = row * table.width;
            const auto slot = [&](int place) -> void* {
                if (place < 0 || s == 0) return nullptr;  // never stepped: the state is zero
                const auto size = static_cast<std::size_t>(itemsize(table.slots.state_type));
                return static_cast<char*>(table.slots.state[place]) + offset * size;
            };
            lapse(programs_[s % capacity_].lapse, table.width, static_cast<float*>(table.p.data) + offset,
                  slot(form_->m), slot(form_->v), slot(form_->v_max), table.slots.state_type);
        }
    });
}

void Lapses::catch_up(nb::handle p, nb::tuple state, nb::handle last, nb::handle rows, bool exact) {
    const Table table = read(p, state, last, rows);
    if (exact && (!form_ || table.p.type != Type::float32))
        throw std::invalid_argument("float32, and a rule with a closed form");
    if (table.count * table.width == 0 || count_ == 0) return;
    nb::gil_scoped_release released;
    find(table);
    if (behind_.empty()) return;
    if (exact) bring_up();
    apply(table, exact);
}

// --- to be kept in a file
// ---------------------------------------------------------------------------------------------

namespace {

constexpr npy_intp kept_numbers = 5;  // beside the rule's own

}  // namespace

nb::object Lapses::history(std::uint64_t first) const {
    const std::size_t own = work_.coefficient_count();
    npy_intp shape[] = {static_cast<npy_intp>(first <= count_ ? count_ - first + 1 : 0),
                        static_cast<npy_intp>(own) + kept_numbers};
    nb::object array = nb::steal(PyArray_SimpleNew(2, shape, NPY_DOUBLE));
    if (!array.is_valid()) throw nb::python_error();
    double* to = static_cast<double*>(PyArray_DATA(as_array(array.ptr())));
    for (std::uint64_t step = first; step <= count_; ++step) {
        const Step& kept = at(step);
        const Coefficients& c = kept.coefficients;
        to = std::copy(c.rule, c.rule + own, to);
        const double numbers[] = {c.l2, c.decay, c.frozen ? 1.0 : 0.0, kept.decayed, kept.largest_rate};
        to = std::copy(std::begin(numbers), std::end(numbers), to);
    }
    return array;
}

void Lapses::restore(std::uint64_t first, nb::handle history) {
    Array array;
    const std::size_t own = work_.coefficient_count();
    if (!read_array(history.ptr(), array) || array.type != Type::float64 || array.axes != 2 || first == 0 ||
        array.shape[1] != static_cast<std::int64_t>(own) + kept_numbers || !Layout(array, nullptr).dense(array) ||
        array.shape[0] > static_cast<std::int64_t>(capacity_))
        throw std::invalid_argument("a history of steps: float64, one in a row");
    count_ = first + static_cast<std::uint64_t>(array.shape[0]) - 1;
    steps_.assign(std::min<std::size_t>(capacity_, std::max<std::size_t>(2, count_ + 1)), Step{});
    programs_.clear();
    const double* from = reinterpret_cast<const double*>(array.data);
    for (std::uint64_t step = first; step <= count_; ++step, from += own + kept_numbers) {
        Step& kept = steps_[step % capacity_];
        Coefficients& c = kept.coefficients;
        c = {};
        std::copy(from, from + own, c.rule);
        c.scale = 1;
        c.clip = c.update_clip = std::numeric_limits<double>::infinity();
        c.l2 = from[own];
        c.decay = from[own + 1];
        c.frozen = from[own + 2] != 0;
        kept.decayed = from[own + 3];
        kept.largest_rate = from[own + 4];
    }
}

}  // namespace adamas
