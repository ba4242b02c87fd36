"""Begin in PyTorch, go on in adamas, and back: the moments and the count of steps move, and no step is lost."""

import numpy as np
import torch

from adamas import convert

rng = np.random.default_rng(0)
matrix, target = rng.standard_normal((50, 8)), rng.standard_normal(50)


def gradient(x):
    return matrix.T @ (matrix @ x - target) / 50


def steps_of_torch(optimizer, parameter, count):
    for _ in range(count):
        parameter.grad = torch.from_numpy(gradient(parameter.detach().numpy()))
        optimizer.step()


stayed, moved = (torch.nn.Parameter(torch.zeros(8, dtype=torch.float64)) for _ in range(2))
at_home, optimizer = torch.optim.AdamW([stayed], lr=0.01), torch.optim.AdamW([moved], lr=0.01)
steps_of_torch(at_home, stayed, 90)

steps_of_torch(optimizer, moved, 30)
ours = convert.to_optimizer(convert.from_torch(optimizer.state_dict()))
print(f"taken over: {ours!r} after {ours.t} steps")
x = [moved.detach().numpy()]  # the same memory
for _ in range(30):
    ours.update(x, [gradient(x[0])])
optimizer.load_state_dict(convert.to_torch(convert.from_optimizer(ours)))
steps_of_torch(optimizer, moved, 30)
print(f"after 90 steps both are at the same place, to {abs(moved - stayed).max().item():.0e}")
