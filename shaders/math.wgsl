// Functions that a scalar's WGSL may call where the built-in one is undefined for some arguments, or where a compiler
// may assume that no NaN or infinity occurs. Tests on bit patterns cannot be optimised away.

fn math_is_nan(a: f32) -> bool { return (bitcast<u32>(a) & 0x7fffffffu) > 0x7f800000u; }
fn math_is_finite(a: f32) -> bool { return (bitcast<u32>(a) & 0x7f800000u) != 0x7f800000u; }

var<private> math_nan_bits: u32 = 0x7fc00000u;
var<private> math_infinity_bits: u32 = 0x7f800000u;
fn math_nan() -> f32 { return bitcast<f32>(math_nan_bits); }
fn math_infinity() -> f32 { return bitcast<f32>(math_infinity_bits); }

fn math_equal(a: f32, b: f32) -> bool {
  let x = bitcast<u32>(a);
  let y = bitcast<u32>(b);
  let same = x == y || ((x | y) & 0x7fffffffu) == 0u;
  return same && !math_is_nan(a);
}

// Both propagate NaN.
fn math_min(a: f32, b: f32) -> f32 {
  if (math_is_nan(a) || math_is_nan(b)) { return math_nan(); }
  return min(a, b);
}
fn math_max(a: f32, b: f32) -> f32 {
  if (math_is_nan(a) || math_is_nan(b)) { return math_nan(); }
  return max(a, b);
}

// C's powf: a negative base has a real power where the exponent is an integer.
fn math_pow(a: f32, b: f32) -> f32 {
  if (b == 0.0 || a == 1.0) { return 1.0; }
  if (math_is_nan(a) || math_is_nan(b)) { return math_nan(); }
  if (!math_is_finite(b)) {
    if (abs(a) == 1.0) { return 1.0; }
    return select(0.0, math_infinity(), (abs(a) > 1.0) == (b > 0.0));
  }
  let integer = floor(b) == b;
  let odd = integer && abs(b) < 16777216.0 && (i32(clamp(b, -16777216.0, 16777216.0)) & 1) == 1;
  let negative = (bitcast<u32>(a) >> 31u) == 1u;
  var size: f32;
  if (a == 0.0) { size = select(0.0, math_infinity(), b < 0.0); }
  else if (!math_is_finite(a)) { size = select(math_infinity(), 0.0, b < 0.0); }
  else if (negative && !integer) { return math_nan(); }
  else { size = pow(abs(a), b); }
  return select(size, -size, negative && odd);
}

// e^a - 1 without cancellation near 0: its series there.
fn math_expm1(a: f32) -> f32 {
  if (abs(a) < 0.5) {
    let p = 1.0 + a / 2.0 * (1.0 + a / 3.0 * (1.0 + a / 4.0 * (1.0 + a / 5.0 * (1.0 + a / 6.0 * (1.0 + a / 7.0 *
      (1.0 + a / 8.0))))));
    return a * p;
  }
  return exp(a) - 1.0;
}

// log(1 + a) without cancellation near 0: 2 artanh(a / (2 + a)).
fn math_log1p(a: f32) -> f32 {
  if (abs(a) < 0.5) {
    let s = a / (2.0 + a);
    let q = s * s;
    return 2.0 * s * (1.0 + q * (1.0 / 3.0 + q * (1.0 / 5.0 + q * (1.0 / 7.0 + q * (1.0 / 9.0 + q * (1.0 / 11.0 +
      q * (1.0 / 13.0)))))));
  }
  return log(1.0 + a);
}

fn math_tanh(a: f32) -> f32 {
  let e = math_expm1(-2.0 * min(abs(a), 20.0));
  return sign(a) * (-e / (2.0 + e));
}

// Abramowitz and Stegun 7.1.26 away from 0, its series near 0: error below 3e-7.
fn math_erf(a: f32) -> f32 {
  let x = abs(a);
  if (x < 0.5) {
    let q = a * a;
    return a * 1.1283791670955126 * (1.0 + q * (-1.0 / 3.0 + q * (1.0 / 10.0 + q * (-1.0 / 42.0 + q * (1.0 / 216.0 +
      q * (-1.0 / 1320.0 + q * (1.0 / 9360.0)))))));
  }
  let t = 1.0 / (1.0 + 0.3275911 * x);
  let p = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
  return sign(a) * (1.0 - p * exp(-x * x));
}
