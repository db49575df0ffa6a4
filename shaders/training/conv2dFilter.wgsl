// A missing pixel above or left of the image has a wrapped, huge coordinate: one comparison finds both sides.
fn load_a(t: u32, m: u32, k: u32) -> f32 {
  let h = k / OW % OH * STRIDE_H + m / (KW * C) - PAD_H;
  let w = k % OW * STRIDE_W + m / C % KW - PAD_W;
  if (h >= H || w >= W) { return 0.0; }
  return load_x(t, k / (OH * OW), h, w, m % C);
}
