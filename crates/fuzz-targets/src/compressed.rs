//! Bodies with a content coding, and the headers that speak of it.

use modelyard_protocol::{Coding, Framing};

const LIMIT: usize = 1 << 20;

/// A byte that chooses the coding, and the body; it is read as the value of a header, too.
pub(crate) fn body(bytes: &[u8]) {
    let Some((choice, body)) = bytes.split_first() else { return };
    let coding = [Coding::Gzip, Coding::Deflate, Coding::Identity][usize::from(choice % 3)];
    if let Ok(plain) = coding.decode(body, LIMIT) {
        assert!(coding == Coding::Identity || plain.len() <= LIMIT);
        let (written, made) = coding.encode(plain.to_vec());
        // Limits follow the length of what is compressed: it is read under the one for all.
        let again = made.decode(&written, usize::MAX).expect("what was compressed comes back");
        assert_eq!(again, plain);
    }
    let (written, made) = coding.encode(body.to_vec());
    assert_eq!(made.decode(&written, usize::MAX).expect("what was compressed comes back"), body);

    let Ok(header) = std::str::from_utf8(body) else { return };
    let accepted = Coding::accepted(header);
    if let Some(name) = accepted.name() {
        assert_eq!(Coding::parse(name).ok(), Some(accepted));
    }
    if let Ok(framing) = Framing::read(Some(header), None) {
        let length = framing.json_length.expect("it was given");
        assert_eq!(Framing::read(Some(&length.to_string()), None).ok(), Some(framing));
    }
}
