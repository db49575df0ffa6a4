// By whole numbers, so that small ones are not flushed: exponents of 31 stay the largest, those of 0 have no leading one.
fn evaluate(i: u32) {
  let half = (load_x(i / 2u) >> (16u * (i % 2u))) & 0xffffu;
  let magnitude = half & 0x7fffu;
  var value = f32(magnitude) * 0x1p-24f;
  if (magnitude >= 0x400u) { value = bitcast<f32>((magnitude << 13u) + select(0x38000000u, 0x70000000u, magnitude >= 0x7c00u)); }
  store_y(i, select(value, -value, half >= 0x8000u));
}
