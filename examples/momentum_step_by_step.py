"""What Adam remembers: the means m of the gradient and v of its square, step by step, and how they are corrected."""

from adamas import Adam

opt, x = Adam(learning_rate=0.5), 4.0
print(" t        x    gradient        m        v    m_hat    v_hat   change")
for t in range(1, 11):
    gradient, before = 2 * x, x
    x = opt.update(x, gradient)
    m, v = opt.state[""]["m"], opt.state[""]["v"]
    m_hat, v_hat = m / (1 - opt.beta1**t), v / (1 - opt.beta2**t)
    print(f"{t:2} {before:8.4f} {gradient:11.4f} {m:8.4f} {v:8.4f} {m_hat:8.4f} {v_hat:8.4f} {x - before:+8.4f}")
