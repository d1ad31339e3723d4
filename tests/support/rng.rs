//! Random numbers that can be had again: every test that uses them prints its seed.

/// `SplitMix64`: small, and the same on every machine.
pub struct Rng(u64);

impl Rng {
    /// Starts from `$MMREPL_SEED`, else from `fallback`, and prints what it took.
    pub fn from_env(fallback: u64) -> Self {
        let given = std::env::var("MMREPL_SEED")
            .ok()
            .and_then(|text| text.parse().ok());
        let seed = given.unwrap_or(fallback);
        println!("seed {seed} (MMREPL_SEED={seed} plays this again)");
        Self(seed)
    }

    /// Starts from `seed`.
    #[allow(dead_code)]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// One of these.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        let index = usize::try_from(self.below(from.len() as u64)).unwrap();
        &from[index]
    }

    /// A generator of its own for a part of the test.
    pub fn fork(&mut self) -> Self {
        Self(self.next())
    }
}
