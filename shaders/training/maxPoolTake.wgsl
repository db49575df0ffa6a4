fn evaluate(i: u32) {
  let c = i % params.c;
  let ow = i / params.c % params.ow;
  let oh = i / (params.c * params.ow) % params.oh;
  let n = i / (params.c * params.ow * params.oh);
  let index = load_index(n, oh, ow, c);
  var value = math_nan();
  if (index >= 0 && u32(index) < params.h * params.w) { value = load_x(n, u32(index) / params.w, u32(index) % params.w, c); }
  store_y(n, oh, ow, c, value);
}
