//! Closed sets of words of the rule language, each with what it means.

/// Declares a set once: its variants, their words, and a sentence about each, which is its documentation
/// and part of the reference page.
macro_rules! words {
    (
        $(#[$attribute:meta])*
        pub enum $set:ident {
            $($name:ident $word:literal $meaning:literal;)*
        }
    ) => {
        $(#[$attribute])*
        pub enum $set {
            $(#[doc = $meaning] $name,)*
        }

        impl $set {
            /// Every one, in the order of the reference page.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Whether something holds for every one. Unlike a loop over `ALL`, each call is compiled for
            /// its own value.
            #[inline]
            pub fn all(mut holds: impl FnMut(Self) -> bool) -> bool {
                $(holds(Self::$name))&&*
            }

            /// The word of the rule language.
            pub const fn word(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)*
                }
            }

            /// What it means, in one sentence.
            pub fn meaning(self) -> &'static str {
                match self {
                    $(Self::$name => $meaning,)*
                }
            }
        }
    };
}

pub(crate) use words;
