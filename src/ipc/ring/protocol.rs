//! How two processes share a ring of words: indexes, frames, and who wakes whom.
//!
//! One writes, one reads. Each keeps its own index to itself, publishes a copy, and believes
//! nothing that the other publishes before it has checked it: a peer that misbehaves can give
//! nonsense or keep silent, but cannot make this side touch memory outside of the words. All of the memory is
//! atomics, since the peer may write at any time. The sleep is in two phases, as in
//! `executor/inbox.rs`; `loom_tests` explores every interleaving.
//!
//! A message is a word with its length in bytes, and its bytes in as many words as they need.

#[cfg(loom)]
use loom::sync::atomic::{AtomicU64, Ordering, fence};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU64, Ordering, fence};

/// A word of the shared memory.
pub(super) type Word = AtomicU64;

pub(super) const WORD_BYTES: usize = size_of::<u64>();

/// Apart from its neighbours, which another core may write: two lines, as they are fetched in
/// pairs.
#[repr(C, align(128))]
#[derive(Default)]
pub(super) struct Apart<T>(T);

/// One side's word to the other.
#[derive(Default)]
#[repr(C)]
pub(super) struct Side {
    /// How many words it sleeps for; zero while it is awake.
    waits_for: Word,
    /// Whether it has ended in order.
    closed: Word,
}

/// What stands before the words.
#[derive(Default)]
#[repr(C)]
pub(super) struct Header {
    /// Says what this memory is.
    pub(super) magic: Apart<Word>,
    /// Words written since the beginning.
    written: Apart<Word>,
    /// Words taken since the beginning.
    taken: Apart<Word>,
    sender: Apart<Side>,
    receiver: Apart<Side>,
}

impl<T> std::ops::Deref for Apart<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl Header {
    /// The sender's own side.
    pub(super) fn sender(&self) -> &Side {
        &self.sender
    }

    /// The receiver's own side.
    pub(super) fn receiver(&self) -> &Side {
        &self.receiver
    }
}

impl Side {
    /// Announces that this side sleeps until there are `words` to read or to write. It must look
    /// once more after this, and not sleep if it can go on.
    pub(super) fn announce(&self, words: u64) {
        self.waits_for.store(words, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// This side is awake.
    pub(super) fn awake(&self) {
        self.waits_for.store(0, Ordering::Relaxed);
    }

    /// Whether this side, the peer, sleeps and has enough now: then the caller must wake it. Call
    /// it after an index was published.
    fn must_be_woken(&self, words: u64) -> bool {
        fence(Ordering::SeqCst);
        let waits_for = self.waits_for.load(Ordering::Relaxed);
        waits_for != 0 && words >= waits_for && self.waits_for.swap(0, Ordering::AcqRel) != 0
    }

    /// This side ends in order.
    pub(super) fn close(&self) {
        self.closed.store(1, Ordering::Release);
    }

    /// Whether this side has ended in order.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire) != 0
    }
}

/// The peer has written what no correct peer writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Corrupt;

/// The words that a message takes: what its sender sleeps for.
pub(super) fn words_of(bytes: usize) -> u64 {
    1 + bytes.div_ceil(WORD_BYTES) as u64
}

/// The largest message of a ring.
pub(super) fn message_bytes_max(words: usize) -> usize {
    (words - 1) * WORD_BYTES
}

/// What a step has led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// There is no room, or no message.
    Stuck,
    /// Done.
    Done {
        /// The peer sleeps and must be woken.
        wake: bool,
    },
}

/// The writing side's own knowledge.
#[derive(Default)]
pub(super) struct Writer {
    written: u64,
    /// As last seen and checked.
    taken: u64,
}

impl Writer {
    /// Writes a message if there is room. It must not be above [`message_bytes_max`].
    pub(super) fn write(
        &mut self,
        header: &Header,
        words: &[Word],
        message: &[u8],
    ) -> Result<Step, Corrupt> {
        assert!(message.len() <= message_bytes_max(words.len()));
        let needed = words_of(message.len());
        if !self.has_room(header, words, needed)? {
            return Ok(Step::Stuck);
        }
        let mask = words.len() as u64 - 1;
        let at = |offset: u64| &words[(self.written.wrapping_add(offset) & mask) as usize];
        at(0).store(message.len() as u64, Ordering::Relaxed);
        for (index, part) in message.chunks(WORD_BYTES).enumerate() {
            let mut word = [0; WORD_BYTES];
            word[..part.len()].copy_from_slice(part);
            at(index as u64 + 1).store(u64::from_ne_bytes(word), Ordering::Relaxed);
        }
        self.written = self.written.wrapping_add(needed);
        header.written.store(self.written, Ordering::Release);
        let unread = self.written.wrapping_sub(self.taken);
        Ok(Step::Done { wake: header.receiver.must_be_woken(unread) })
    }

    /// Whether a message of so many words fits.
    fn has_room(&mut self, header: &Header, words: &[Word], needed: u64) -> Result<bool, Corrupt> {
        let room = |taken: u64| words.len() as u64 - self.written.wrapping_sub(taken);
        if room(self.taken) >= needed {
            return Ok(true);
        }
        let taken = header.taken.load(Ordering::Acquire);
        // It lies between what was seen before and what was written.
        if self.written.wrapping_sub(taken) > self.written.wrapping_sub(self.taken) {
            return Err(Corrupt);
        }
        let has_room = room(taken) >= needed;
        self.taken = taken;
        Ok(has_room)
    }
}

/// The reading side's own knowledge.
#[derive(Default)]
pub(super) struct Reader {
    taken: u64,
    /// As last seen and checked.
    written: u64,
}

impl Reader {
    /// Appends the next message, if there is one, to `into`.
    pub(super) fn read(
        &mut self,
        header: &Header,
        words: &[Word],
        into: &mut Vec<u8>,
    ) -> Result<Step, Corrupt> {
        let capacity = words.len() as u64;
        if self.written == self.taken {
            let written = header.written.load(Ordering::Acquire);
            if written.wrapping_sub(self.taken) > capacity {
                return Err(Corrupt);
            }
            self.written = written;
            if written == self.taken {
                return Ok(Step::Stuck);
            }
        }
        let at = |offset: u64| {
            let index = self.taken.wrapping_add(offset) & (capacity - 1);
            words[index as usize].load(Ordering::Relaxed)
        };
        // Read once: the peer may change it at any time.
        let length = at(0);
        if length > message_bytes_max(words.len()) as u64 {
            return Err(Corrupt);
        }
        let needed = words_of(length as usize);
        if needed > self.written.wrapping_sub(self.taken) {
            return Err(Corrupt);
        }
        into.reserve(length as usize);
        let mut left = length as usize;
        for offset in 1..needed {
            let word = at(offset).to_ne_bytes();
            let part = left.min(WORD_BYTES);
            into.extend_from_slice(&word[..part]);
            left -= part;
        }
        self.taken = self.taken.wrapping_add(needed);
        header.taken.store(self.taken, Ordering::Release);
        let room = capacity - self.written.wrapping_sub(self.taken);
        Ok(Step::Done { wake: header.sender.must_be_woken(room) })
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ring(words: usize) -> (Header, Vec<Word>) {
        (Header::default(), (0..words).map(|_| Word::new(0)).collect())
    }

    const DONE: Result<Step, Corrupt> = Ok(Step::Done { wake: false });
    const WAKE: Result<Step, Corrupt> = Ok(Step::Done { wake: true });

    #[test]
    fn messages_come_out_as_they_went_in_round_and_round() {
        let (header, words) = ring(8);
        let (mut writer, mut reader) = (Writer::default(), Reader::default());
        for round in 0..100_u8 {
            let message: Vec<u8> = (0..round % 30).map(|byte| byte ^ round).collect();
            assert_eq!(writer.write(&header, &words, &message), DONE);
            let mut into = vec![1, 2];
            assert_eq!(reader.read(&header, &words, &mut into), DONE);
            assert_eq!(into[..2], [1, 2]);
            assert_eq!(into[2..], message);
        }
    }

    #[test]
    fn a_full_ring_and_an_empty_one_are_stuck() {
        let (header, words) = ring(4);
        let (mut writer, mut reader) = (Writer::default(), Reader::default());
        let mut into = Vec::new();
        assert_eq!(reader.read(&header, &words, &mut into), Ok(Step::Stuck));
        assert_eq!(writer.write(&header, &words, &[1; 24]), DONE);
        assert_eq!(writer.write(&header, &words, b""), Ok(Step::Stuck));
        assert_eq!(reader.read(&header, &words, &mut into), DONE);
        assert_eq!(writer.write(&header, &words, b""), DONE);
        assert_eq!(into, [1; 24]);
    }

    #[test]
    fn only_a_sleeper_that_has_enough_is_woken() {
        let (header, words) = ring(8);
        let (mut writer, mut reader) = (Writer::default(), Reader::default());
        header.receiver().announce(1);
        assert_eq!(writer.write(&header, &words, b"one"), WAKE);
        assert_eq!(writer.write(&header, &words, b"two"), DONE);
        while writer.write(&header, &words, b"").unwrap() != Step::Stuck {}
        header.sender().announce(words_of(b"two words".len()));
        let mut into = Vec::new();
        assert_eq!(reader.read(&header, &words, &mut into), DONE, "two words are not three");
        assert_eq!(reader.read(&header, &words, &mut into), WAKE);
        header.sender().announce(4);
        header.sender().awake();
        assert_eq!(reader.read(&header, &words, &mut into), DONE);
    }

    #[test]
    fn indexes_that_cannot_be_are_refused() {
        let (header, words) = ring(8);
        let (mut writer, mut reader) = (Writer::default(), Reader::default());
        let mut into = Vec::new();
        header.written.store(9, Ordering::Relaxed);
        assert_eq!(reader.read(&header, &words, &mut into), Err(Corrupt), "more than fits");
        header.written.store(u64::MAX, Ordering::Relaxed);
        assert_eq!(reader.read(&header, &words, &mut into), Err(Corrupt), "behind the reader");
        header.written.store(2, Ordering::Relaxed);
        words[0].store(9, Ordering::Relaxed);
        assert_eq!(reader.read(&header, &words, &mut into), Err(Corrupt), "past what is written");
        words[0].store(u64::MAX, Ordering::Relaxed);
        assert_eq!(reader.read(&header, &words, &mut into), Err(Corrupt), "an absurd length");
        assert_eq!(writer.write(&header, &words, &[0; 40]), DONE);
        header.taken.store(7, Ordering::Relaxed);
        assert_eq!(writer.write(&header, &words, &[0; 40]), Err(Corrupt), "more than was written");
        header.taken.store(6, Ordering::Relaxed);
        assert_eq!(writer.write(&header, &words, &[0; 40]), DONE);
        header.taken.store(3, Ordering::Relaxed);
        assert_eq!(writer.write(&header, &words, &[0; 40]), Err(Corrupt), "taken back");
        assert!(into.is_empty());
    }

    #[test]
    fn indexes_pass_the_end_of_their_range() {
        let (header, words) = ring(4);
        let start = u64::MAX - 2;
        header.written.store(start, Ordering::Relaxed);
        header.taken.store(start, Ordering::Relaxed);
        let mut writer = Writer { written: start, taken: start };
        let mut reader = Reader { taken: start, written: start };
        for round in 0..10 {
            let mut into = Vec::new();
            assert_eq!(writer.write(&header, &words, &[round; 20]), DONE);
            assert_eq!(reader.read(&header, &words, &mut into), DONE);
            assert_eq!(into, [round; 20]);
        }
    }

    proptest! {
        /// Whatever the peer writes, at whatever moment, neither side panics or gives more than
        /// the ring holds.
        #[test]
        fn a_hostile_peer_does_no_harm(
            steps in prop::collection::vec((0..6_u8, any::<u64>(), 0..16_u64, 0..8_usize), 1..200)
        ) {
            let (header, words) = ring(8);
            let (mut writer, mut reader) = (Writer::default(), Reader::default());
            for (what, wild, near, index) in steps {
                match what {
                    0 => header.written.store(wild, Ordering::Relaxed),
                    1 => header.written.store(reader.taken.wrapping_add(near), Ordering::Relaxed),
                    2 => header.taken.store(writer.written.wrapping_sub(near), Ordering::Relaxed),
                    3 => words[index].store(if near < 8 { near * 7 } else { wild },
                                            Ordering::Relaxed),
                    4 => _ = writer.write(&header, &words, &vec![7; index * 8]),
                    _ => {
                        let mut into = Vec::new();
                        let _ = reader.read(&header, &words, &mut into);
                        prop_assert!(into.len() <= message_bytes_max(8));
                    }
                }
            }
        }
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::sync::{Arc, Condvar, Mutex};
    use loom::thread;

    /// What the sockets are: a wake is kept until it is taken.
    #[derive(Default)]
    struct Door {
        knocked: Mutex<bool>,
        knock: Condvar,
    }

    impl Door {
        fn wait(&self) {
            let mut knocked = self.knocked.lock().unwrap();
            while !std::mem::take(&mut *knocked) {
                knocked = self.knock.wait(knocked).unwrap();
            }
        }

        fn wake(&self) {
            *self.knocked.lock().unwrap() = true;
            self.knock.notify_one();
        }
    }

    struct Ring {
        header: Header,
        words: Vec<Word>,
        sender: Door,
        receiver: Door,
    }

    fn send(ring: &Ring, writer: &mut Writer, message: &[u8]) {
        loop {
            for is_last_look in [false, true] {
                match writer.write(&ring.header, &ring.words, message).unwrap() {
                    Step::Stuck if is_last_look => ring.sender.wait(),
                    Step::Stuck => ring.header.sender().announce(words_of(message.len())),
                    Step::Done { wake } => {
                        ring.header.sender().awake();
                        if wake {
                            ring.receiver.wake();
                        }
                        return;
                    }
                }
            }
        }
    }

    fn receive(ring: &Ring, reader: &mut Reader) -> Vec<u8> {
        let mut into = Vec::new();
        loop {
            for is_last_look in [false, true] {
                match reader.read(&ring.header, &ring.words, &mut into).unwrap() {
                    Step::Stuck if is_last_look => ring.receiver.wait(),
                    Step::Stuck => ring.header.receiver().announce(1),
                    Step::Done { wake } => {
                        ring.header.receiver().awake();
                        if wake {
                            ring.sender.wake();
                        }
                        return into;
                    }
                }
            }
        }
    }

    /// A lost wake leaves a side asleep for ever, which the checker reports.
    fn messages_arrive(words: usize, messages: u8) {
        let ring = Arc::new(Ring {
            header: Header::default(),
            words: (0..words).map(|_| Word::new(0)).collect(),
            sender: Door::default(),
            receiver: Door::default(),
        });
        let sending = Arc::clone(&ring);
        let sender = thread::spawn(move || {
            let mut writer = Writer::default();
            (0..messages).for_each(|message| send(&sending, &mut writer, &[message; 3]));
        });
        let mut reader = Reader::default();
        for message in 0..messages {
            assert_eq!(receive(&ring, &mut reader), [message; 3]);
        }
        sender.join().unwrap();
    }

    #[test]
    fn no_wake_of_the_receiver_is_lost() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(|| messages_arrive(4, 2));
    }

    #[test]
    fn no_wake_of_the_sender_is_lost() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        // Room for one message: the second waits for the first to be taken.
        model.check(|| messages_arrive(2, 2));
    }

    #[test]
    fn what_was_written_before_the_close_is_seen_after_it() {
        loom::model(|| {
            let header = Arc::new(Header::default());
            let words: Arc<Vec<Word>> = Arc::new((0..2).map(|_| Word::new(0)).collect());
            let (their_header, their_words) = (Arc::clone(&header), Arc::clone(&words));
            let sender = thread::spawn(move || {
                Writer::default().write(&their_header, &their_words, b"last").unwrap();
                their_header.sender().close();
            });
            if header.sender().is_closed() {
                let mut into = Vec::new();
                let step = Reader::default().read(&header, &words, &mut into).unwrap();
                assert!(matches!(step, Step::Done { .. }));
                assert_eq!(into, b"last");
            }
            sender.join().unwrap();
        });
    }
}
