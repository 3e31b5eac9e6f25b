//! The codec of channels: decoding any bytes does not panic, and decoded frames are encoded to the same bytes.

use sockbroker_proto::channel::{ChannelError, HEAD_BYTES, read_frame, write_frame};

/// Decodes the bytes as a stream of frames.
pub fn body(mut data: &[u8]) {
    loop {
        match read_frame(data) {
            Ok(Some((frame, length))) => {
                let (own, rest) = data.split_at(length);
                let mut written = Vec::new();
                assert_eq!(write_frame(&mut written, frame), Ok(()), "a decoded frame fits");
                assert_eq!(written, own, "the encoded frame differs from the decoded one");
                for cut in [0, HEAD_BYTES - 1, length / 2, length - 1] {
                    let cut = cut.min(length - 1);
                    assert_eq!(read_frame(&own[..cut]), Ok(None), "cut at {cut}");
                }
                data = rest;
            }
            Ok(None) => return,
            Err(error) => {
                let longer = [data, b"x"].concat();
                assert_eq!(read_frame(&longer), Err(error), "further bytes change the error");
                if let ChannelError::Kind(kind) = error {
                    assert_eq!(data.first(), Some(&kind));
                }
                return;
            }
        }
    }
}
