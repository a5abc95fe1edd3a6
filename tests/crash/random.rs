//! Numbers that look random and come again with the same seed.
//!
//! A Weyl sequence through the finalizer of SplitMix64 (Steele, Lea and Flood, 2014).

#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Less than `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// A length from 1 to `max` whose logarithm is even: mostly short, sometimes very long.
    pub(crate) fn length(&mut self, max: usize) -> usize {
        let bits = u64::from(max.ilog2()) + 1;
        let top = 1_u64 << (self.below(bits) + 1);
        (1 + self.below(top) as usize).min(max)
    }
}

/// The bytes that a client writes with an operation: told apart from all others, and readable back.
pub(crate) fn payload(client: usize, sequence: u64, length: usize) -> Vec<u8> {
    let mut bytes = format!("<{client}.{sequence}.{length}>").into_bytes();
    if bytes.len() > length {
        bytes.clear();
    }
    let mut random = Random::new(sequence.wrapping_mul(1009) ^ (client as u64) << 48);
    while bytes.len() < length {
        let word = random.next().to_le_bytes();
        bytes.extend_from_slice(&word[..word.len().min(length - bytes.len())]);
    }
    bytes
}

/// Who wrote a payload, if it is long enough to say so: client, sequence and length.
pub(crate) fn origin(bytes: &[u8]) -> Option<(usize, u64, usize)> {
    let end = bytes.iter().take(64).position(|byte| *byte == b'>')?;
    let text = std::str::from_utf8(bytes[..end].strip_prefix(b"<")?).ok()?;
    let mut parts = text.split('.');
    let origin =
        (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    parts.next().is_none().then_some(origin)
}
