//! Echo: each payload carries its number, so that lost, repeated or reordered bytes show.

use super::{Malformed, Verdict, excerpt};

/// Bytes of the number at the head of a payload; shorter payloads carry its low bytes.
const STAMP_BYTES: usize = 8;

/// Payloads sent and expected back on one connection.
#[derive(Debug)]
pub(crate) struct Echo {
    pattern: Vec<u8>,
    next_stamp: u64,
    expected_stamp: u64,
    /// How much of the expected payload has come.
    arrived: usize,
    /// Whether that part was right.
    intact: bool,
}

impl Echo {
    pub(super) fn new(payload_bytes: usize, seed: u64) -> Self {
        assert!(payload_bytes > 0);
        // Connections start far apart, so that one's bytes on another's stream show.
        let stamp = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self {
            pattern: (0..payload_bytes).map(|index| b'a' + (index % 26) as u8).collect(),
            next_stamp: stamp,
            expected_stamp: stamp,
            arrived: 0,
            intact: true,
        }
    }

    pub(super) fn write_request(&mut self, output: &mut Vec<u8>) {
        let stamp = self.next_stamp.to_le_bytes();
        let stamped = STAMP_BYTES.min(self.pattern.len());
        output.extend_from_slice(&stamp[..stamped]);
        output.extend_from_slice(&self.pattern[stamped..]);
        self.next_stamp = self.next_stamp.wrapping_add(1);
    }

    /// Compares as bytes arrive, so that a large payload is never gathered.
    pub(super) fn read_replies(&mut self, input: &[u8]) -> Result<Verdict, Malformed> {
        let mut verdict = Verdict { consumed: input.len(), ..Verdict::default() };
        let stamped = STAMP_BYTES.min(self.pattern.len());
        let mut rest = input;
        while !rest.is_empty() {
            if self.expected_stamp == self.next_stamp {
                return Err(Malformed(format!("bytes that nobody sent: {}", excerpt(rest))));
            }
            let taken = rest.len().min(self.pattern.len() - self.arrived);
            let (bytes, later) = rest.split_at(taken);
            let stamp = self.expected_stamp.to_le_bytes();
            let head = stamped.saturating_sub(self.arrived).min(taken);
            let stamp_start = self.arrived.min(stamped);
            let pattern_start = self.arrived + head;
            self.intact &= bytes[..head] == stamp[stamp_start..stamp_start + head]
                && bytes[head..] == self.pattern[pattern_start..self.arrived + taken];
            self.arrived += taken;
            rest = later;
            if self.arrived == self.pattern.len() {
                if self.intact {
                    verdict.good += 1;
                } else {
                    verdict.wrong += 1;
                    verdict
                        .complaint
                        .get_or_insert_with(|| format!("echo differs: {}", excerpt(bytes)));
                }
                self.arrived = 0;
                self.intact = true;
                self.expected_stamp = self.expected_stamp.wrapping_add(1);
            }
        }
        Ok(verdict)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(echo: &mut Echo, count: usize) -> Vec<u8> {
        let mut output = Vec::new();
        for _ in 0..count {
            echo.write_request(&mut output);
        }
        output
    }

    #[test]
    fn an_echo_split_anywhere_is_good() {
        for payload in [1, 5, 8, 64] {
            for split in 0..payload * 3 {
                let mut echo = Echo::new(payload, 7);
                let bytes = sent(&mut echo, 3);
                let first = echo.read_replies(&bytes[..split]).unwrap();
                let second = echo.read_replies(&bytes[split..]).unwrap();
                assert_eq!(first.good + second.good, 3, "payload {payload} split {split}");
                assert_eq!(first.wrong + second.wrong, 0, "payload {payload} split {split}");
            }
        }
    }

    #[test]
    fn a_changed_byte_spoils_its_payload_only() {
        for index in 0..64 {
            let mut echo = Echo::new(64, 7);
            let mut bytes = sent(&mut echo, 2);
            bytes[index] ^= 1;
            let verdict = echo.read_replies(&bytes).unwrap();
            assert_eq!((verdict.wrong, verdict.good), (1, 1), "byte {index}");
        }
    }

    #[test]
    fn payloads_in_the_wrong_order_are_wrong() {
        let mut echo = Echo::new(16, 7);
        let bytes = sent(&mut echo, 2);
        let swapped = [&bytes[16..], &bytes[..16]].concat();
        assert_eq!(echo.read_replies(&swapped).unwrap().wrong, 2);
    }

    #[test]
    fn more_than_was_sent_is_malformed() {
        let mut echo = Echo::new(4, 7);
        let mut bytes = sent(&mut echo, 1);
        bytes.push(0);
        assert!(echo.read_replies(&bytes).is_err());
    }
}
