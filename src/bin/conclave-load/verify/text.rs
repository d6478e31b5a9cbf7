//! What messages say: a piece of one long random text, another one for each message, so that a text can be checked
//! without being kept.

/// The long text; twice as long as the longest message that servers take by default.
const LENGTH: usize = 256 * 1024;

/// The texts of a run.
#[derive(Debug)]
pub(crate) struct Texts {
    letters: String,
    payload: usize,
}

impl Texts {
    /// The longest text.
    pub(crate) const MAX: usize = LENGTH / 2;

    /// Texts of so many bytes, at most [`Texts::MAX`].
    pub(crate) fn new(payload: usize) -> Self {
        const ALPHABET: &[u8; 64] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 .";
        let mut state = 0x9e37_79b9_7f4a_7c15;
        let letters = (0..LENGTH).map(|_| {
            state = mix(state);
            char::from(ALPHABET[(state >> 58) as usize])
        });
        Self { letters: letters.collect(), payload: payload.min(Self::MAX) }
    }

    /// What a speaker says with its message of this number. Letters, digits, blanks and full stops only: nothing that
    /// JSON would escape.
    pub(crate) fn of(&self, speaker: u32, number: u32) -> &str {
        let mixed = mix(u64::from(speaker) << 32 | u64::from(number));
        let at = (mixed % (LENGTH - self.payload) as u64) as usize;
        &self.letters[at..at + self.payload]
    }
}

/// A bijection of numbers that looks like chance (splitmix64).
fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}
