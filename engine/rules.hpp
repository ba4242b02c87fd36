// The rules of src/adamas/rules.py as the engine runs them: the same names, order and expressions, so that both return
// the same bits. A rule's members are its coefficients; `change` takes one element and updates its state in place;
// `rate`, where there is such a thing, gives the effective learning rate for the state after that. T is float or
// double, or as many of them as are wide.
//
// Everything here lives in a namespace of its own per instruction set, and calls nothing from the standard library that
// could be emitted as a shared symbol: a function compiled for AVX-512 must never be linked into the baseline.
#pragma once

#include "wide.hpp"

namespace adamas::ADAMAS_ISA {

// The names of state that is never negative, because squares or magnitudes go into it; a rule may have others.
constexpr const char* nonnegative = "s u v v_max";

// A coefficient, rounded once from float64 to the type of the arithmetic. This and what follows is the same for all
// numbers of a wide T, or made of one for each, which then must lie on the same side of what is decided by.
template <class T>
struct Number {
    T value;
    Number(double x) : value(all<T>(static_cast<One<T>>(x))) {}
    Number(const T& x)
        requires is_wide<T>
        : value(x) {}
    operator T() const { return value; }
    friend T operator*(Number a, T b) { return a.value * b; }
    friend T operator*(T a, Number b) { return a * b.value; }
    friend T operator+(T a, Number b) { return a + b.value; }
};

struct Flag : Condition {
    Flag(double x) : Condition(x != 0) {}
    Flag(const Wide<double>& x) : Condition(x[0] != 0) {}
};

// The decay of a running average, as `lerp` needs it.
template <class T>
struct Average {
    T beta, w;
    Condition slow;
    Average(double x)
        : beta(all<T>(static_cast<One<T>>(x))), w(all<T>(static_cast<One<T>>(1 - x))), slow(1 - x < 0.5) {}
    Average(const T& x)
        requires is_wide<T>
        : beta(x), w(1 - x), slow(1 - x[0] < 0.5) {}
};

template <class T>
T maximum(T a, T b) {
    return ((a >= b) | (a != a)) ? a : b;
}

template <class T>
T lerp(T a, T b, const Average<T>& average) {
    return average.slow ? a + (average.w * b - average.w * a) : b + (average.beta * a - average.beta * b);
}

template <class T>
T saturate(T x) {
    return lesser(largest<T>(), x);
}

template <class T>
T clamp(T x, T bound) {
    return x > bound ? bound : x < -bound ? -bound : x;
}

template <class T>
T contain_within(T x, T bound, T g) {
    return abs(g) <= largest<T>() ? clamp(x, bound) : x;
}

template <class T>
T contain(T x, T g) {
    return contain_within(x, largest<T>(), g);
}

template <class T>
T square(T x) {
    return saturate(x * x);
}

template <class T>
T variance(T mean_of_squares, T mean) {
    const T difference = mean_of_squares - square(mean);
    return difference < 0 ? T{} : difference;
}

template <class T>
T sign(T x) {
    return x > 0 ? all<T>(1) : x < 0 ? all<T>(-1) : x;
}

template <class T>
T ratio(T a, T b) {
    return a / (b == 0 ? infinity<T>() : b);
}

template <class T>
struct SGD {
    static constexpr const char* name = "SGD";
    static constexpr const char* state_names = "";
    static constexpr const char* coefficients = "learning_rate";
    Number<T> learning_rate;

    T change(T, T g) const { return learning_rate * g; }
};

template <class T>
struct Momentum {
    static constexpr const char* name = "Momentum";
    static constexpr const char* state_names = "b";
    static constexpr const char* coefficients = "learning_rate momentum nesterov gain";
    Number<T> learning_rate, momentum;
    Flag nesterov;
    Number<T> gain;

    T change(T, T g, T& b) const {
        b = contain(momentum * b + gain * g, g);
        return learning_rate * (nesterov ? g + momentum * b : b);
    }
};

template <class T>
struct AdaGrad {
    static constexpr const char* name = "AdaGrad";
    static constexpr const char* state_names = "s";
    static constexpr const char* coefficients = "learning_rate epsilon";
    Number<T> learning_rate, epsilon;

    T change(T, T g, T& s) const {
        s = saturate(s + square(g));
        return learning_rate * ratio(g, sqrt(s) + epsilon);
    }
    T rate(T s) const { return ratio<T>(learning_rate, sqrt(s) + epsilon); }
};

template <class T>
struct RMSProp {
    static constexpr const char* name = "RMSProp";
    static constexpr const char* state_names = "v";
    static constexpr const char* coefficients = "learning_rate beta2 epsilon";
    Number<T> learning_rate;
    Average<T> beta2;
    Number<T> epsilon;

    T change(T, T g, T& v) const {
        v = lerp(v, square(g), beta2);
        return learning_rate * ratio(g, sqrt(v) + epsilon);
    }
    T rate(T v) const { return ratio<T>(learning_rate, sqrt(v) + epsilon); }
};

template <class T>
struct RMSPropMomentum {
    static constexpr const char* name = "RMSPropMomentum";
    static constexpr const char* state_names = "v b";
    static constexpr const char* coefficients = "learning_rate beta2 epsilon momentum";
    Number<T> learning_rate;
    Average<T> beta2;
    Number<T> epsilon, momentum;

    T change(T, T g, T& v, T& b) const {
        v = lerp(v, square(g), beta2);
        b = contain(momentum * b + ratio(g, sqrt(v) + epsilon), g);
        return learning_rate * b;
    }
    T rate(T v, T) const { return ratio<T>(learning_rate, sqrt(v) + epsilon); }
};

template <class T>
struct CenteredRMSProp {
    static constexpr const char* name = "CenteredRMSProp";
    static constexpr const char* state_names = "v n";
    static constexpr const char* coefficients = "learning_rate beta2 epsilon";
    Number<T> learning_rate;
    Average<T> beta2;
    Number<T> epsilon;

    T change(T, T g, T& v, T& n) const {
        v = lerp(v, square(g), beta2);
        n = lerp(n, g, beta2);
        return learning_rate * ratio(g, sqrt(variance(v, n)) + epsilon);
    }
    T rate(T v, T n) const { return ratio<T>(learning_rate, sqrt(variance(v, n)) + epsilon); }
};

template <class T>
struct CenteredRMSPropMomentum {
    static constexpr const char* name = "CenteredRMSPropMomentum";
    static constexpr const char* state_names = "v n b";
    static constexpr const char* coefficients = "learning_rate beta2 epsilon momentum";
    Number<T> learning_rate;
    Average<T> beta2;
    Number<T> epsilon, momentum;

    T change(T, T g, T& v, T& n, T& b) const {
        v = lerp(v, square(g), beta2);
        n = lerp(n, g, beta2);
        b = contain(momentum * b + ratio(g, sqrt(variance(v, n)) + epsilon), g);
        return learning_rate * b;
    }
    T rate(T v, T n, T) const { return ratio<T>(learning_rate, sqrt(variance(v, n)) + epsilon); }
};

template <class T>
struct Adam {
    static constexpr const char* name = "Adam";
    static constexpr const char* state_names = "m v";
    static constexpr const char* coefficients = "learning_rate step beta1 beta2 root_scale epsilon";
    Number<T> learning_rate, step;
    Average<T> beta1, beta2;
    Number<T> root_scale, epsilon;

    T change(T, T g, T& m, T& v) const {
        m = lerp(m, g, beta1);
        v = lerp(v, square(g), beta2);
        return step * ratio(m, sqrt(v) * root_scale + epsilon);
    }
    T rate(T, T v) const { return ratio<T>(learning_rate, sqrt(v) * root_scale + epsilon); }
};

template <class T>
struct AMSGrad {
    static constexpr const char* name = "AMSGrad";
    static constexpr const char* state_names = "m v v_max";
    static constexpr const char* coefficients = "learning_rate step beta1 beta2 root_scale epsilon";
    Number<T> learning_rate, step;
    Average<T> beta1, beta2;
    Number<T> root_scale, epsilon;

    T change(T, T g, T& m, T& v, T& v_max) const {
        m = lerp(m, g, beta1);
        v = lerp(v, square(g), beta2);
        v_max = maximum(v_max, v);
        return step * ratio(m, sqrt(v_max) * root_scale + epsilon);
    }
    T rate(T, T, T v_max) const { return ratio<T>(learning_rate, sqrt(v_max) * root_scale + epsilon); }
};

template <class T>
struct Adamax {
    static constexpr const char* name = "Adamax";
    static constexpr const char* state_names = "m u";
    static constexpr const char* coefficients = "learning_rate step beta1 beta2 epsilon";
    Number<T> learning_rate, step;
    Average<T> beta1;
    Number<T> beta2, epsilon;

    T change(T, T g, T& m, T& u) const {
        m = lerp(m, g, beta1);
        u = maximum<T>(beta2 * u, abs(g) + epsilon);
        return step * ratio(m, u);
    }
    T rate(T, T u) const { return ratio<T>(learning_rate, u); }
};

template <class T>
struct RAdam {
    static constexpr const char* name = "RAdam";
    static constexpr const char* state_names = "m v";
    static constexpr const char* coefficients = "learning_rate step beta1 beta2 root_scale epsilon rectified";
    Number<T> learning_rate, step;
    Average<T> beta1, beta2;
    Number<T> root_scale, epsilon;
    Flag rectified;

    T change(T, T g, T& m, T& v) const {
        m = lerp(m, g, beta1);
        v = lerp(v, square(g), beta2);
        return step * (rectified ? ratio(m, sqrt(v) * root_scale + epsilon) : m);
    }
    T rate(T, T v) const { return ratio<T>(learning_rate, sqrt(v) * root_scale + epsilon); }
};

template <class T>
struct AdaBelief {
    static constexpr const char* name = "AdaBelief";
    static constexpr const char* state_names = "m s";
    static constexpr const char* coefficients = "learning_rate step beta1 beta2 root_scale epsilon";
    Number<T> learning_rate, step;
    Average<T> beta1, beta2;
    Number<T> root_scale, epsilon;

    T change(T, T g, T& m, T& s) const {
        m = lerp(m, g, beta1);
        s = lerp(s, square(g - m), beta2) + epsilon;
        return step * ratio(m, sqrt(s) * root_scale + epsilon);
    }
    T rate(T, T s) const { return ratio<T>(learning_rate, sqrt(s) * root_scale + epsilon); }
};

template <class T>
struct Yogi {
    static constexpr const char* name = "Yogi";
    static constexpr const char* state_names = "m v";
    static constexpr const char* coefficients = "learning_rate step beta1 beta2 root_scale epsilon";
    Number<T> learning_rate, step;
    Average<T> beta1;
    Number<T> beta2, root_scale, epsilon;

    T change(T, T g, T& m, T& v) const {
        m = lerp(m, g, beta1);
        const T g2 = square(g);
        v = saturate(v - sign(v - g2) * (beta2 * g2));
        return step * ratio(m, sqrt(v) * root_scale + epsilon);
    }
    T rate(T, T v) const { return ratio<T>(learning_rate, sqrt(v) * root_scale + epsilon); }
};

template <class T>
struct ADOPT {
    static constexpr const char* name = "ADOPT";
    static constexpr const char* state_names = "m v";
    static constexpr const char* coefficients = "learning_rate beta1 beta2 epsilon bound";
    Number<T> learning_rate;
    Average<T> beta1, beta2;
    Number<T> epsilon, bound;

    T change(T, T g, T& m, T& v) const {
        const T root = sqrt(v);
        const T normed = ratio<T>(g, root < epsilon.value ? epsilon.value : root);
        m = lerp(m, contain_within<T>(normed, bound, g), beta1);
        v = lerp(v, square(g), beta2);
        return learning_rate * m;
    }
};

template <class T>
struct AdEMAMix {
    static constexpr const char* name = "AdEMAMix";
    static constexpr const char* state_names = "m n v";
    static constexpr const char* coefficients = "learning_rate mean_scale beta1 beta2 beta3 alpha root_scale epsilon";
    Number<T> learning_rate, mean_scale;
    Average<T> beta1, beta2, beta3;
    Number<T> alpha, root_scale, epsilon;

    T change(T, T g, T& m, T& n, T& v) const {
        m = lerp(m, g, beta1);
        n = lerp(n, g, beta3);
        v = lerp(v, square(g), beta2);
        const T mixed = contain(mean_scale * m + alpha * n, g);
        return learning_rate * ratio(mixed, sqrt(v) * root_scale + epsilon);
    }
    T rate(T, T, T v) const { return ratio<T>(learning_rate, sqrt(v) * root_scale + epsilon); }
};

template <class T>
struct Adan {
    static constexpr const char* name = "Adan";
    static constexpr const char* state_names = "m v n g_before";
    static constexpr const char* nonnegative = "n";
    static constexpr const char* coefficients =
        "learning_rate beta1 beta2 beta3 mean_scale change_weight change_scale root_scale epsilon has_before";
    Number<T> learning_rate;
    Average<T> beta1, beta2, beta3;
    Number<T> mean_scale, change_weight, change_scale, root_scale, epsilon;
    Flag has_before;

    T change(T, T g, T& m, T& v, T& n, T& g_before) const {
        const T d = has_before ? contain(g - g_before, g) : 0 * g;
        m = lerp(m, g, beta1);
        v = lerp(v, d, beta2);
        n = lerp(n, square(g + change_weight * d), beta3);
        g_before = g;
        const T ahead = contain(mean_scale * m + change_scale * v, g);
        return learning_rate * ratio(ahead, sqrt(n) * root_scale + epsilon);
    }
    T rate(T, T, T n, T) const { return ratio<T>(learning_rate, sqrt(n) * root_scale + epsilon); }
};

template <class T>
struct Lion {
    static constexpr const char* name = "Lion";
    static constexpr const char* state_names = "m";
    static constexpr const char* coefficients = "learning_rate beta1 beta2";
    Number<T> learning_rate;
    Average<T> beta1, beta2;

    T change(T, T g, T& m) const {
        const T ahead = lerp(m, g, beta1);
        m = lerp(m, g, beta2);
        return learning_rate * sign(ahead);
    }
};

template <class T>
struct NAdam {
    static constexpr const char* name = "NAdam";
    static constexpr const char* state_names = "m v";
    static constexpr const char* coefficients =
        "learning_rate mean_weight gradient_weight beta1 beta2 root_scale epsilon mu_product";
    Number<T> learning_rate, mean_weight, gradient_weight;
    Average<T> beta1, beta2;
    Number<T> root_scale, epsilon, mu_product;

    T change(T, T g, T& m, T& v) const {
        m = lerp(m, g, beta1);
        v = lerp(v, square(g), beta2);
        const T ahead = contain(mean_weight * m + gradient_weight * g, g);
        return learning_rate * ratio(ahead, sqrt(v) * root_scale + epsilon);
    }
    T rate(T, T v) const { return ratio<T>(learning_rate, sqrt(v) * root_scale + epsilon); }
};

template <class T>
struct ScheduleFreeAdamW {
    static constexpr const char* name = "ScheduleFreeAdamW";
    static constexpr const char* state_names = "d v";
    static constexpr const char* coefficients =
        "learning_rate step pull share rest beta2 root_scale epsilon own_decay weight_sum largest_rate";
    Number<T> learning_rate, step, pull, share, rest;
    Average<T> beta2;
    Number<T> root_scale, epsilon, own_decay, weight_sum, largest_rate;

    T change(T p, T g, T& d, T& v) const {
        v = lerp(v, square(g), beta2);
        const T u = ratio(g, sqrt(v) * root_scale + epsilon) + own_decay * p, d_before = d;
        d = rest * (d - pull * u);
        return step * u - share * d_before;
    }
    T rate(T, T v) const { return ratio<T>(learning_rate, sqrt(v) * root_scale + epsilon); }
};

template <template <class> class... Rule>
struct List {};

using Rules = List<SGD, Momentum, AdaGrad, RMSProp, RMSPropMomentum, CenteredRMSProp, CenteredRMSPropMomentum, Adam,
                   AMSGrad, Adamax, RAdam, AdaBelief, Yogi, ADOPT, AdEMAMix, Adan, Lion, NAdam, ScheduleFreeAdamW>;

}  // namespace adamas::ADAMAS_ISA
