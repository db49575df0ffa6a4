// An input pixel is read by tap (kh, kw) of output (h + PAD_H - kh) / STRIDE_H, if that is whole and inside. What is
// negative wraps to a huge number and fails the comparison.
fn load_a(t: u32, m: u32, k: u32) -> f32 {
  let y = m / W % H + PAD_H - k / (KW * O);
  let x = m % W + PAD_W - k / O % KW;
  if (y % STRIDE_H != 0u || x % STRIDE_W != 0u || y / STRIDE_H >= OH || x / STRIDE_W >= OW) { return 0.0; }
  return load_g(t, m / (H * W), y / STRIDE_H, x / STRIDE_W, k % O);
}

fn load_b(t: u32, k: u32, c: u32) -> f32 {
  return load_w(t, k / (KW * O), k / O % KW, c, k % O);
}
