// What a library says of the structures that it takes: where each field lies. The caller mirrors them, and compares
// (relvlm_kernels/native.py).
#pragma once

#include <cstddef>
#include <string>

namespace relvlm {

struct Field {
  const char *structure, *name;
  size_t offset, size;
};

#define RELVLM_FIELD(Type, name) {#Type, #name, offsetof(Type, name), sizeof(Type::name)},
#define RELVLM_SIZE(Type) {#Type, "sizeof", 0, sizeof(Type)},

// A line "structure field offset size" for each.
template <size_t count>
std::string text_of(const Field (&fields)[count]) {
  std::string text;
  for (const Field& field : fields)
    text += std::string(field.structure) + " " + field.name + " " + std::to_string(field.offset) + " " +
            std::to_string(field.size) + "\n";
  return text;
}

}  // namespace relvlm
