// The budgets of lola_data.sampling.methods, worked out in the page: sizes of languages and a method in, budgets out.
//
// The arithmetic is exact, as it is there: whole numbers without limit, and one common denominator for what is not whole.
// A number that a reader sees moving under a slider is then the number that a run would use.
const sampling = (() => {
  "use strict";

  const METHODS = ["proportional", "temperature", "unimax", "lola-v1", "all"];
  const SCALE = 52n; // A double of at least 1 is a whole number of 2^-52.

  // floor(epochs * size), the double `epochs` taken for exactly what it is.
  function cap(epochs, size) {
    let bits = 0n;
    while (!Number.isInteger(epochs)) {
      epochs *= 2;
      bits += 1n;
    }
    return (BigInt(epochs) * size) >> bits;
  }

  // `total` shared out by weight with no share above its cap; what a cap cuts off goes to the others by weight.
  // Share i is whole[i] + rest[i] / of.
  function fill(total, weights, caps) {
    const whole = weights.map(() => 0n);
    const rest = weights.map(() => 0n);
    let open = [...weights.keys()].filter((i) => weights[i] > 0n && caps[i] > 0n);
    let left = total;
    let of = 1n;
    while (open.length) {
      const sum = open.reduce((all, i) => all + weights[i], 0n);
      const full = new Set(open.filter((i) => weights[i] * left >= caps[i] * sum));
      if (!full.size) {
        of = sum;
        for (const i of open) {
          whole[i] = (weights[i] * left) / sum;
          rest[i] = (weights[i] * left) % sum;
        }
        break;
      }
      for (const i of full) {
        whole[i] = caps[i];
        left -= caps[i];
      }
      open = open.filter((i) => !full.has(i));
    }
    return { whole, rest, of };
  }

  function quotient(numerator, denominator) {
    return denominator ? Number((numerator << 128n) / denominator) / 2 ** 128 : 0;
  }

  // Whole units by largest remainder; of equal ones the larger language is first, then the order of the codes.
  function dealt({ whole, rest, of }, sizes) {
    const budgets = [...whole];
    const left = Number(rest.reduce((all, part) => all + part, 0n) / of);
    const order = [...sizes.keys()].sort(
      (a, b) => (rest[a] === rest[b] ? sizes[b] - sizes[a] || a - b : rest[a] < rest[b] ? 1 : -1));
    for (const i of order.slice(0, left)) budgets[i] += 1n;
    return budgets.map(Number);
  }

  // sizes: units of each language, in the order of their codes. options: total, alpha, maxEpochs, percent, floor (the
  // rule of LOLA v1). Returns total, unspent, and per language budget, share, epochs: as SamplingPlan has them.
  function plan(method, sizes, options) {
    const have = sizes.map(BigInt);
    const everything = have.reduce((all, size) => all + size, 0n);
    let total = options.total === null || options.total === undefined ? everything : BigInt(options.total);
    let exact;
    if (method === "all") {
      total = everything;
      exact = { whole: have, rest: have.map(() => 0n), of: 1n };
    } else if (method === "lola-v1") {
      const whole = have.map((size, i) =>
        size < BigInt(options.floor) ? size : (size * BigInt(options.percent[i])) / 100n);
      total = whole.reduce((all, size) => all + size, 0n);
      exact = { whole, rest: whole.map(() => 0n), of: 1n };
    } else if (method === "proportional") {
      exact = fill(total, have, have);
    } else {
      const caps = have.map((size) => cap(options.maxEpochs, size));
      const weights = method === "unimax"
        ? have.map((size) => (size ? 1n : 0n))
        : sizes.map((size) => (size ? BigInt(Math.pow(size, options.alpha) * 2 ** Number(SCALE)) : 0n));
      exact = fill(total, weights, caps);
    }
    const { whole, rest, of } = exact;
    const spent = whole.reduce((all, part) => all + part, 0n) + rest.reduce((all, part) => all + part, 0n) / of;
    const budgets = dealt(exact, sizes);
    return {
      total: Number(total),
      spent: Number(spent),
      unspent: Number(total - spent),
      budgets,
      shares: whole.map((part, i) => quotient(part * of + rest[i], spent * of)),
      epochs: budgets.map((budget, i) => (sizes[i] ? budget / sizes[i] : 0)),
    };
  }

  // As in lola_data.balance.evenness: exp(entropy), and the share of the smaller half of the languages.
  function evenness(shares) {
    const sorted = [...shares].sort((a, b) => a - b);
    const entropy = sorted.reduce((sum, share) => (share > 0 ? sum - share * Math.log(share) : sum), 0);
    const half = sorted.slice(0, Math.floor(sorted.length / 2)).reduce((sum, share) => sum + share, 0);
    return { effective: sorted.some((share) => share > 0) ? Math.exp(Math.max(0, entropy)) : 0, half };
  }

  return { METHODS, plan, evenness };
})();
