// An input pixel gathers from every window that covers it: output (h + params.pad_h - kh) / params.stride_h, if that is whole and
// inside (a negative one wraps to a huge number). `takes` says whether the window took its value from this pixel.
fn evaluate(i: u32) {
  let c = i % params.c;
  let w = i / params.c % params.w;
  let h = i / (params.c * params.w) % params.h;
  let n = i / (params.c * params.w * params.h);
  var sum = 0.0;
  for (var kh = 0u; kh < params.kh; kh++) {
    for (var kw = 0u; kw < params.kw; kw++) {
      let y = h + params.pad_h - kh;
      let x = w + params.pad_w - kw;
      if (y % params.stride_h == 0u && x % params.stride_w == 0u && y / params.stride_h < params.oh && x / params.stride_w < params.ow) {
        if (takes(n, y / params.stride_h, x / params.stride_w, c, i32(h * params.w + w))) { sum += load_g(n, y / params.stride_h, x / params.stride_w, c); }
      }
    }
  }
  store_dx(n, h, w, c, sum);
}
