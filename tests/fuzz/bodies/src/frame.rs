//! The frame codec: decoding any bytes does not panic, and encoded frames are decoded again.

use sockbroker_proto::frame::{FrameError, FrameLimits, Head, read_head, write_head};

/// The parts of a frame.
#[derive(Debug, PartialEq, Eq)]
struct Frame {
    head: Head,
    json: Vec<u8>,
    attachments: Vec<Vec<u8>>,
}

/// Decodes the bytes as a stream of frames, with the default limits and with small limits.
pub fn body(data: &[u8]) {
    let narrow = FrameLimits { head_bytes: 64, frame_bytes: 100, attachments: 3, descriptors: 2 };
    for limits in [FrameLimits::default(), narrow] {
        check_head(data, &limits);
        let frames = read_stream(data, &limits);
        let written: Vec<u8> = frames.iter().flat_map(write).collect();
        // An encoded head can be longer than the decoded one ("Fds:1"), so use the default limits.
        assert_eq!(
            read_stream(&written, &FrameLimits::default()),
            frames,
            "the decoded frames differ from the encoded ones"
        );
    }
}

/// Checks the first head, independent of the bytes after it.
fn check_head(data: &[u8], limits: &FrameLimits) {
    let first = read_head(data, limits);
    match &first {
        Ok(Some((head, length))) => {
            assert!(data[..*length].ends_with(b"\r\n\r\n"), "a head ends with a blank line");
            assert!(*length <= limits.head_bytes, "head_bytes");
            assert!(head.body_length() <= limits.frame_bytes, "frame_bytes");
            assert!(head.attachments.as_ref().is_none_or(|all| all.len() <= limits.attachments));
            assert!(head.descriptors <= limits.descriptors, "descriptors");
            for cut in [0, *length / 2, *length - 1] {
                assert_eq!(read_head(&data[..cut], limits), Ok(None), "cut at {cut}");
            }
            assert_eq!(
                read_head(&data[..*length], limits),
                first,
                "bytes after the head change the result"
            );
        }
        Ok(None) => {
            assert!(data.len() < limits.head_bytes, "a head without an end exceeds the limit");
            let ended = [data, b"\r\n\r\n"].concat();
            assert_ne!(read_head(&ended, limits), Ok(None), "a blank line does not end the head");
        }
        Err(FrameError::HeadTooLong(limit)) => {
            assert!(*limit == limits.head_bytes && data.len() >= *limit, "refused below the limit");
        }
        Err(error) => {
            let longer = [data, b"x"].concat();
            assert_eq!(
                read_head(&longer, limits).as_ref(),
                Err(error),
                "further bytes change the error"
            );
        }
    }
}

/// Returns the frames up to the first incomplete or invalid one.
fn read_stream(mut data: &[u8], limits: &FrameLimits) -> Vec<Frame> {
    let mut frames = Vec::new();
    while let Ok(Some((head, length))) = read_head(data, limits) {
        let Some((body, rest)) = data[length..].split_at_checked(head.body_length()) else {
            break;
        };
        let (json, mut raw) = body.split_at(head.content_length);
        let mut attachments = Vec::new();
        for length in head.attachments.as_deref().unwrap_or_default() {
            let (attachment, rest) = raw.split_at(*length);
            attachments.push(attachment.to_vec());
            raw = rest;
        }
        assert!(raw.is_empty(), "body_length is not the sum of its parts");
        frames.push(Frame { json: json.to_vec(), attachments, head });
        data = rest;
    }
    frames
}

fn write(frame: &Frame) -> Vec<u8> {
    let lengths: Vec<usize> = frame.attachments.iter().map(Vec::len).collect();
    let lengths = frame.head.attachments.as_ref().map(|_| lengths.as_slice());
    let mut bytes = Vec::new();
    write_head(&mut bytes, frame.json.len(), lengths, frame.head.descriptors);
    bytes.extend(&frame.json);
    bytes.extend(frame.attachments.concat());
    bytes
}
