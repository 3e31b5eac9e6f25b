//! A Rust source, parsed: what it declares and what it refers to, as plain values, because spans
//! belong to the thread that parsed them.

use std::ops::RangeInclusive;

use proc_macro2::{Delimiter, Span, TokenStream, TokenTree};
use quote::ToTokens as _;
use syn::spanned::Spanned as _;
use syn::visit::{self, Visit};

use crate::text::{self, Fragment};

type Lines = RangeInclusive<usize>;

#[derive(Debug, Default)]
pub(crate) struct Source {
    /// Its `mod name;` declarations: path from the file, and line.
    pub(crate) modules: Vec<(Vec<String>, usize)>,
    /// The paths it names in imports, code, attributes and macro arguments. A glob ends with `*`.
    pub(crate) paths: Vec<(Vec<String>, usize)>,
    pub(crate) functions: Vec<Function>,
    /// The types whose values it builds or takes apart by their fields.
    pub(crate) literals: Vec<(String, usize)>,
    /// Its attributes: every word in them.
    pub(crate) attributes: Vec<(Vec<String>, usize)>,
    pub(crate) fragments: Vec<Fragment>,
    /// The items that are compiled for tests only.
    pub(crate) tests: Vec<Lines>,
    /// Its modules with a body.
    inline: Vec<(Vec<String>, Lines)>,
}

#[derive(Debug)]
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) lines: Lines,
    /// Whether other stages can call it.
    pub(crate) public: bool,
    /// Every word in its parameters.
    pub(crate) parameters: Vec<String>,
}

impl Source {
    pub(crate) fn parse(text: &str) -> syn::Result<Self> {
        let tokens: TokenStream = text.parse()?;
        let mut source = Self { fragments: text::of_rust(text, tokens.clone()), ..Self::default() };
        source.scan(tokens.clone(), &[]);
        let mut reader = Reader { source, inside: Vec::new() };
        reader.visit_file(&syn::parse2(tokens)?);
        Ok(reader.source)
    }

    /// Whether a line is compiled for tests only.
    pub(crate) fn is_test(&self, line: usize) -> bool {
        self.tests.iter().any(|lines| lines.contains(&line))
    }

    /// The inline modules around a line.
    pub(crate) fn inside(&self, line: usize) -> &[String] {
        let mut around = self.inline.iter().filter(|(_, lines)| lines.contains(&line));
        around.next_back().map_or(&[], |(path, _)| path)
    }

    /// Finds the paths and attributes in tokens. `stem` is what stands before a group of imports.
    fn scan(&mut self, tokens: TokenStream, stem: &[String]) {
        let mut path = Path { words: stem.to_vec(), line: 0, open: !stem.is_empty() };
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let is = |at: Option<usize>, text: &str| match at.and_then(|at| tokens.get(at)) {
            Some(TokenTree::Ident(ident)) => ident == text,
            Some(TokenTree::Punct(punct)) => text.starts_with(punct.as_char()),
            _ => false,
        };
        let mut colons = 0;
        for (at, token) in tokens.iter().enumerate() {
            match token {
                TokenTree::Punct(punct) if punct.as_char() == ':' => {
                    colons += 1;
                    path.open = colons == 2;
                    continue;
                }
                TokenTree::Punct(punct) if punct.as_char() == '*' && path.open => {
                    path.words.push("*".to_owned());
                }
                TokenTree::Ident(ident) => {
                    if !path.open {
                        self.end(&mut path, &[]);
                    }
                    // What follows `<T as Trait>` is not a path of its own.
                    let tail = colons == 2 && is(at.checked_sub(3), ">");
                    let silent = tail || ident == "use" || path.open && ident == "self";
                    path.words.extend((!silent).then(|| ident.to_string()));
                    (path.line, path.open) = (ident.span().start().line, false);
                }
                TokenTree::Group(group) if path.open && group.delimiter() == Delimiter::Brace => {
                    let stem = std::mem::take(&mut path.words);
                    self.scan(group.stream(), &stem);
                }
                TokenTree::Group(group) => {
                    self.end(&mut path, stem);
                    // `quote!` holds code of the crate that uses the macro.
                    if !is(at.checked_sub(2), "quote") {
                        self.scan(group.stream(), &[]);
                    }
                    let hash = is(at.checked_sub(1), "#") || is(at.checked_sub(2), "#");
                    if hash && group.delimiter() == Delimiter::Bracket {
                        let line = group.span_open().start().line;
                        self.attributes.push((idents(group.stream()), line));
                    }
                }
                TokenTree::Literal(literal) => {
                    self.end(&mut path, stem);
                    // `#[serde(with = "crate::bytes")]` refers to a module.
                    let text = literal.to_string();
                    let text = text.trim_matches('"');
                    let rooted = text.starts_with("crate::") || text.starts_with("super::");
                    if rooted && !text.ends_with(':') {
                        let words = text.split("::").map(str::to_owned).collect();
                        self.paths.push((words, literal.span().start().line));
                    }
                }
                TokenTree::Punct(_) => self.end(&mut path, stem),
            }
            colons = 0;
        }
        self.end(&mut path, &[]);
    }

    /// Keeps a path that is complete, and begins the next one.
    fn end(&mut self, path: &mut Path, stem: &[String]) {
        let words = std::mem::replace(&mut path.words, stem.to_vec());
        path.open = !stem.is_empty();
        let line = std::mem::take(&mut path.line);
        if words.len() > 1 && line > 0 {
            self.paths.push((words, line));
        }
    }
}

/// A path that is being read; it goes on if it is open.
struct Path {
    words: Vec<String>,
    line: usize,
    open: bool,
}

struct Reader {
    source: Source,
    inside: Vec<String>,
}

impl Reader {
    fn attributes(&mut self, attributes: &[syn::Attribute], span: Span) {
        if attributes.iter().any(is_for_tests) {
            self.source.tests.push(lines(span));
        }
    }

    fn function(&mut self, visibility: &syn::Visibility, signature: &syn::Signature, span: Span) {
        let public = match visibility {
            syn::Visibility::Public(_) => true,
            syn::Visibility::Restricted(to) => to.path.is_ident("crate"),
            syn::Visibility::Inherited => false,
        };
        self.source.functions.push(Function {
            name: signature.ident.to_string(),
            lines: lines(span),
            public,
            parameters: idents(signature.inputs.to_token_stream()),
        });
    }

    fn literal(&mut self, path: &syn::Path) {
        if let Some(syn::PathSegment { ident, .. }) = path.segments.last() {
            self.source.literals.push((ident.to_string(), ident.span().start().line));
        }
    }
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        let attributes: &[syn::Attribute] = match item {
            syn::Item::Const(item) => &item.attrs,
            syn::Item::Enum(item) => &item.attrs,
            syn::Item::Fn(item) => &item.attrs,
            syn::Item::Impl(item) => &item.attrs,
            syn::Item::Macro(item) => &item.attrs,
            syn::Item::Mod(item) => &item.attrs,
            syn::Item::Static(item) => &item.attrs,
            syn::Item::Struct(item) => &item.attrs,
            syn::Item::Type(item) => &item.attrs,
            syn::Item::Use(item) => &item.attrs,
            _ => &[],
        };
        self.attributes(attributes, item.span());
        visit::visit_item(self, item);
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        self.inside.push(item.ident.to_string());
        let lines = lines(item.span());
        match item.content {
            Some(_) => self.source.inline.push((self.inside.clone(), lines)),
            None => self.source.modules.push((self.inside.clone(), *lines.end())),
        }
        visit::visit_item_mod(self, item);
        self.inside.pop();
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.function(&item.vis, &item.sig, item.span());
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.attributes(&item.attrs, item.span());
        self.function(&item.vis, &item.sig, item.span());
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_expr_struct(&mut self, literal: &'ast syn::ExprStruct) {
        self.literal(&literal.path);
        visit::visit_expr_struct(self, literal);
    }

    fn visit_pat_struct(&mut self, pattern: &'ast syn::PatStruct) {
        self.literal(&pattern.path);
        visit::visit_pat_struct(self, pattern);
    }
}

fn lines(span: Span) -> Lines {
    span.start().line..=span.end().line
}

/// `#[cfg(test)]`, `#[cfg(all(test, ..))]`, `#[test]`.
fn is_for_tests(attribute: &syn::Attribute) -> bool {
    let words = idents(attribute.meta.to_token_stream());
    let has = |word: &str| words.iter().any(|found| found == word);
    attribute.path().is_ident("test")
        || attribute.path().is_ident("cfg") && has("test") && !has("not")
}

/// Every word among tokens, however deep.
pub(crate) fn idents(tokens: TokenStream) -> Vec<String> {
    let words = |token| match token {
        TokenTree::Ident(ident) => vec![ident.to_string()],
        TokenTree::Group(group) => idents(group.stream()),
        TokenTree::Punct(_) | TokenTree::Literal(_) => Vec::new(),
    };
    tokens.into_iter().flat_map(words).collect()
}

mod tests {
    use super::*;

    fn paths(source: &str) -> String {
        let paths = Source::parse(source).unwrap().paths;
        paths.iter().map(|(words, _)| words.join("::")).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn paths_are_found_wherever_they_stand() {
        let imports = "use a::b::{self, c, d::{e, f as g}, h::*,}; use ::i::j; use super::*;";
        assert_eq!(paths(imports), "a::b a::b::c a::b::d::e a::b::d::f a::b::h::* i::j super::*");
        assert_eq!(paths("fn f(x: a::B<c::D>) -> e::F { g::<h::I>() }"), "a::B c::D e::F h::I");
        assert_eq!(paths("fn f() { x.j::<k::L>(); <M as n::O>::p(); }"), "k::L n::O");
        assert_eq!(paths("fn f() { r!(x: s::t, u { v::w(y) }) }"), "s::t v::w");
        assert_eq!(paths("m! { use a::{b, c::{d}}; use e::*; }"), "a::b a::c::d e::*");
        assert_eq!(paths("#[derive(a::B)] #[c(with = \"crate::d\")] struct S;"), "a::B crate::d");
        assert_eq!(paths("fn f() { quote! { crate::g() } }"), "");
    }

    #[test]
    fn test_code_and_inline_modules_are_marked() {
        let source = "mod a; #[cfg(test)]\nmod b;\n#[cfg(test)] mod c { mod d {\n} }\n\
                      fn f() {}\n#[cfg(not(test))] fn i() {}";
        let source = Source::parse(source).unwrap();
        assert_eq!(source.tests, [1..=2, 3..=4]);
        assert_eq!(source.modules, [(vec!["a".to_owned()], 1), (vec!["b".to_owned()], 2)]);
        assert_eq!(source.inside(4), ["c", "d"]);
        assert_eq!(source.inside(5), [""; 0]);
    }
}
