"""Figure 3: a residual network; the noise that follows the gradients brings signSGD on
heterogeneous data nearer to signSGD on homogeneous data."""
