fn evaluate(i: u32) {
  let c = i % C;
  let ow = i / C % OW;
  let oh = i / (C * OW) % OH;
  let n = i / (C * OW * OH);
  let index = load_index(n, oh, ow, c);
  var value = math_nan();
  if (index >= 0 && u32(index) < H * W) { value = load_x(n, u32(index) / W, u32(index) % W, c); }
  store_y(n, oh, ow, c, value);
}
